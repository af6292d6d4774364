// The device's read bandwidth: the limit of a decode.
#pragma once

namespace tandem {

// Bytes a second that a kernel reads from 4 GiB, median of seven; 0 without room for it.
double ReadBandwidth();

}  // namespace tandem
