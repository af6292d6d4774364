"""Distils a small draft from a llama GGUF: see docs/drafts.md."""
