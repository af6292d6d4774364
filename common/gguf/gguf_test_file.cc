#include "common/gguf/gguf_test_file.h"

#include <vector>

#include "common/gguf/gguf_writer.h"

namespace tandem {

std::string SoundGgufBytes() {
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddUint32("llama.block_count", 2);
  writer.AddUint64("test.u64", uint64_t{1} << 63);
  writer.AddInt32("test.i32", -7);
  writer.AddFloat("test.f32", 0.5F);
  writer.AddBool("test.bool", true);
  writer.AddRaw("test.u8", 0, GgufBytes().Number<uint8_t>(200).bytes());
  writer.AddRaw("test.i8", 1, GgufBytes().Number<int8_t>(-100).bytes());
  writer.AddRaw("test.u16", 2, GgufBytes().Number<uint16_t>(60000).bytes());
  writer.AddRaw("test.i16", 3, GgufBytes().Number<int16_t>(-30000).bytes());
  writer.AddRaw("test.i64", 11, GgufBytes().Number<int64_t>(-5000000000).bytes());
  writer.AddRaw("test.f64", 12, GgufBytes().Number<double>(1e300).bytes());
  writer.AddStrings("tokenizer.ggml.tokens", {"a", "", "\xc4\xa0the", "<0x0A>"});
  writer.AddFloats("tokenizer.ggml.scores", {0.0F, -1.0F, -2.5F, 3.0F});
  writer.AddInts("tokenizer.ggml.token_type", {1, 1, 6, -3});
  writer.AddRaw("test.bools", 9, GgufBytes().U32(7).U64(3).Raw({"\1\0\1", 3}).bytes());
  writer.AddRaw("test.bytes", 9, GgufBytes().U32(0).U64(2).Raw("\xff\x01").bytes());
  writer.AddRaw("test.doubles", 9, GgufBytes().U32(12).U64(1).Number(1e300).bytes());
  writer.AddInts("test.empty", {});

  const std::vector<float> ramp = {0, 1, 2, 3, 4, 5, 6, 7};
  writer.AddTensor("token_embd.weight", {4, 2}, ramp);
  writer.AddTensor("output_norm.weight", {8}, ramp);
  writer.AddTensor("blk.0.attn_q.weight", DType::kQ4_1, {64, 3}, std::vector<uint8_t>(120, 0x5a));
  writer.AddTensor("blk.0.attn_k.weight", DType::kQ6_K, {256, 1}, std::vector<uint8_t>(210, 0x11));
  writer.AddTensor("blk.0.attn_v.weight", DType::kF16, {2, 3, 4, 5}, std::vector<uint8_t>(240, 1));
  return writer.Build();
}

}  // namespace tandem
