"""A tokenizer of bytes, as files that ``transformers`` reads."""

from __future__ import annotations

from typing import Any, NamedTuple

BYTES = 256
PADDING = "<|pad|>"


class ByteTokenizer(NamedTuple):
    """Each byte is one token, byte 0 the token ``first``; padding takes the id before it, if any,
    else the one after all bytes, and stands on that side of a text."""

    first: int
    max_length: int
    left: bool

    @property
    def padding(self) -> int:
        """The id of padding."""
        return self.first - 1 if self.first else BYTES

    @property
    def size(self) -> int:
        """How many ids there are, padding included."""
        return max(self.padding, self.first + BYTES - 1) + 1

    def files(self) -> dict[str, Any]:
        """The contents of its files, by name."""
        return {"tokenizer.json": self._rules(), "tokenizer_config.json": self._settings()}

    def _settings(self) -> dict[str, Any]:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": PADDING,
            "padding_side": "left" if self.left else "right",
            "model_max_length": self.max_length,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
        }

    def _rules(self) -> dict[str, Any]:
        """Byte-pair encoding that merges nothing, so that single bytes are left."""
        vocabulary = {
            character: self.first + byte for byte, character in enumerate(byte_characters())
        }
        pad = {"id": self.padding, "content": PADDING, "special": True}
        as_it_stands = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [pad | as_it_stands],
            "normalizer": None,
            "pre_tokenizer": bytewise | {"use_regex": False},
            "post_processor": None,
            "decoder": bytewise | {"use_regex": False},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": ({PADDING: self.padding} if self.first else {}) | vocabulary,
                "merges": [],
            },
        }


def byte_characters() -> list[str]:
    """The character that byte-level tokenizers write each byte as.

    Those of Latin-1 that can be seen stand for themselves, the others follow from U+0100 on
    (Radford et al. 2019, section 2.2).
    """
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(BYTES) if byte not in seen]
    return [chr(b) if b in seen else chr(BYTES + hidden.index(b)) for b in range(BYTES)]
