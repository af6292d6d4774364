// Tells two model files apart without reading all of them.
#pragma once

#include <string>

#include "common/gguf/gguf.h"

namespace tandem {

// 16 hexadecimal digits of everything before the tensors (names, shapes, vocabulary, chat
// template), the size, and the first bytes of each tensor: other weights of the same shape
// differ there too. Not cryptographic: against mistakes, not against attackers.
std::string ModelFingerprint(const GgufFile& file);

}  // namespace tandem
