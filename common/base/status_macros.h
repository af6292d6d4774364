// Early returns for absl::Status. absl 20220623 has none of its own.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define TANDEM_STATUS_CONCAT_INNER(a, b) a##b
#define TANDEM_STATUS_CONCAT(a, b) TANDEM_STATUS_CONCAT_INNER(a, b)

// Returns from the calling function when `expr` is not OK.
#define RETURN_IF_ERROR(expr)                                       \
  do {                                                              \
    if (absl::Status tandem_status = (expr); !tandem_status.ok()) { \
      return tandem_status;                                         \
    }                                                               \
  } while (false)

// ASSIGN_OR_RETURN(auto value, Function()); returns its status when not OK.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(TANDEM_STATUS_CONCAT(tandem_status_or, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(holder, lhs, expr) \
  auto holder = (expr);                          \
  if (!holder.ok()) {                            \
    return std::move(holder).status();           \
  }                                              \
  lhs = *std::move(holder)
