#include "cli/tokenize.h"

#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/strings/str_join.h"
#include "cli/exit_codes.h"
#include "common/base/status_macros.h"
#include "common/tokenizer/tokenizer.h"

namespace tandem {
namespace {

absl::Status PrintIds(const Tokenizer& tokenizer, const std::string& text,
                      const EncodeOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.Encode(text, options));
  std::printf("%s\n", absl::StrJoin(ids, " ").c_str());
  return absl::OkStatus();
}

}  // namespace

int RunTokenize(const TokenizeOptions& options) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromFile(options.model);
  if (!tokenizer.ok()) return Fail(kExitModelFile, tokenizer.status());
  const EncodeOptions encode = {
      .add_bos = options.add_bos,
      .special = options.parse_special ? SpecialTokens::kParse : SpecialTokens::kAsText};
  absl::Status status;
  if (options.is_by_line) {
    for (std::string line; status.ok() && std::getline(std::cin, line);) {
      status = PrintIds(**tokenizer, line, encode);
    }
  } else {
    status =
        PrintIds(**tokenizer, std::string(std::istreambuf_iterator<char>(std::cin), {}), encode);
  }
  return status.ok() ? kExitOk : Fail(kExitFailure, status);
}

}  // namespace tandem
