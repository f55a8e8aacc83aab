"""SmolLM2's own tokenizer behind the interface of the mini models' (`Tokenizer`): its words and its chat marks, and one
of its unused marks for pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

BEGIN, IMAGE = "<|endoftext|>", "<empty_output>"  # a document begins; a mark of notebooks, which no chat holds


class ChatTokenizer:
    """Wraps transformers' tokenizer of SmolLM2, `real`.

    A turn of a chat is what `ask` makes of a question, the answer, and the end: just the ids of the real tokenizer's
    chat template, without its system message.
    """

    def __init__(self, real: Any):
        self.real = real
        self.pad_id, self.eos_id = real.pad_token_id, real.eos_token_id
        self.bos_id, self.image_id = real.convert_tokens_to_ids([BEGIN, IMAGE])

    def __len__(self) -> int:
        return len(self.real)

    def encode(self, text: str) -> list[int]:
        """The ids of a text. "<image>" in the text becomes the picture's placeholder."""
        return self.real.encode(text.replace("<image>", IMAGE), add_special_tokens=False)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids, marks left out."""
        return self.real.decode([int(i) for i in ids], skip_special_tokens=True).strip()

    @staticmethod
    def ask(question: str) -> str:
        """The user's turn, and the beginning of the assistant's."""
        return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
