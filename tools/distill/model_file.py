"""A llama GGUF as numpy arrays, and its shape."""

import dataclasses

import gguf


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a llama model; vocab is the number of rows of its embedding."""
    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    head_dim: int
    rope_base: float
    eps: float

    @property
    def parameters(self):
        attention = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        norms = 2 * self.width
        layer = attention + 3 * self.width * self.ffn + norms
        return self.vocab * self.width + self.layers * layer + self.width


def read_gguf(path):
    """The shape and a dict of float32 arrays of a llama GGUF."""
    reader = gguf.GGUFReader(path)

    def value(key):
        field = reader.get_field(key)
        if field is None:
            raise ValueError(f"{path} has no {key}")
        return field.contents()

    if value("general.architecture") != "llama":
        raise ValueError(f"{path} is of architecture {value('general.architecture')}, need llama")
    arrays = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
              for tensor in reader.tensors}
    if "output.weight" in arrays:
        raise ValueError(f"{path} has a head of its own; only tied embeddings are known here")
    width, heads = value("llama.embedding_length"), value("llama.attention.head_count")
    return Shape(vocab=len(arrays["token_embd.weight"]), width=width,
                 layers=value("llama.block_count"), heads=heads,
                 kv_heads=value("llama.attention.head_count_kv"),
                 ffn=value("llama.feed_forward_length"),
                 head_dim=len(arrays["blk.0.attn_q.weight"]) // heads,
                 rope_base=value("llama.rope.freq_base"),
                 eps=value("llama.attention.layer_norm_rms_epsilon")), arrays
