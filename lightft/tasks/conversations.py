"""Conversations as tokens: the one place where messages become what a model reads, in training and after."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from transformers import PreTrainedTokenizerBase

from lightft.errors import DataError, InvalidSettingError
from lightft.records import Message
from lightft.tasks.head import IGNORED, special_tokens_around

__all__ = ["conversation_tokens", "end_token", "prompt_tokens", "render_prompt"]

# What a base model without a chat template is trained and asked with (the instruction format of Stanford Alpaca).
_PLAIN_TEMPLATE = (
    "{% set names = {'system': 'System', 'user': 'Instruction', 'assistant': 'Response'} %}"
    "{% for message in messages %}### {{ names[message.role] }}:\n"
    "{{ message.content }}{{ eos_token if message.role == 'assistant' }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)


def prompt_tokens(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token ids a model is asked with.

    The names of control tokens in a message stay text: only the template writes control tokens.
    """
    shield = _Shield(messages, tokenizer)
    return shield.tokens(render_prompt(shield.messages, tokenizer))


def conversation_tokens(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return ids and labels of a conversation in which what the assistant says, and that it ends, carries the loss.

    The tokens before an answer are exactly those of ``prompt_tokens``.

    Raises:
        InvalidSettingError: the tokenizer has no end token.
    """
    end_id = end_token(tokenizer)
    shield = _Shield(messages, tokenizer)
    messages = shield.messages
    ids: list[int] = []
    labels: list[int] = []
    rendered = ""
    for turn, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = render_prompt(messages[:turn], tokenizer)
        if not prompt.startswith(rendered):
            # A template that rewrites earlier turns (dropping their reasoning, say) cannot be read turn by turn.
            ids, labels, rendered = [], [], ""
        prompt_ids = shield.tokens(prompt[len(rendered) :])
        completion = _completion(messages[: turn + 1], prompt, tokenizer)
        answer_ids = shield.tokens(completion)
        if not completion.rstrip().endswith(tokenizer.eos_token):
            answer_ids = [*answer_ids, end_id]
        # What a template writes after the end of the turn (a line break) is layout, not answer.
        end = len(answer_ids) - answer_ids[::-1].index(end_id)
        ids += prompt_ids + answer_ids
        labels += [IGNORED] * len(prompt_ids) + answer_ids[:end] + [IGNORED] * (len(answer_ids) - end)
        rendered = prompt + completion
    return ids, labels


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the token that ends an answer.

    Raises:
        InvalidSettingError: there is none.
    """
    if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
        raise InvalidSettingError(
            "The tokenizer has no end token, so that no answer could be taught to end. Set tokenizer.eos_token to a token "
            "of its vocabulary (eos_token in the model's tokenizer_config.json), or take a model that has one."
        )
    end: int = tokenizer.eos_token_id
    return end


def render_prompt(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text a model is asked with, control tokens by name."""
    return _render(messages, tokenizer, add_generation_prompt=True)


class _Shield:
    """Keeps what users wrote apart from what the template writes, though both pass through one string.

    In the messages, each name of a token that was added to the vocabulary gives way to a placeholder; of the rendered
    text, the placeholders are tokenised as the names' letters. (``apply_chat_template(sanitize_control_tokens=True)`` does
    the like for a whole conversation, but cannot say which of its tokens are an answer's.)

    Attributes:
        messages: with placeholders.
    """

    def __init__(self, messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # A name of one letter has no parts it could be written in.
        self._names = sorted((name for name in tokenizer.get_added_vocab() if len(name) > 1), key=len, reverse=True)
        self.messages = list(messages)
        written = "".join(message.content for message in messages)
        if not any(name in written for name in self._names):
            self._placeholder = None
            return
        mark = _character_not_in(written)
        self._placeholder = re.compile(f"{mark}([0-9]+){mark}")
        number_of = {name: number for number, name in enumerate(self._names)}
        names = re.compile("|".join(map(re.escape, self._names)))
        self.messages = [
            replace(message, content=names.sub(lambda name: f"{mark}{number_of[name[0]]}{mark}", message.content))
            for message in messages
        ]

    def tokens(self, rendered: str) -> list[int]:
        """Return the token ids of a rendered text."""
        if self._placeholder is None:
            return self._tokenised(rendered)
        ids: list[int] = []
        for place, part in enumerate(self._placeholder.split(rendered)):
            name = self._names[int(part)] if place % 2 else None
            ids += self._tokenised(part) if name is None else self._tokenised(name[:1]) + self._tokenised(name[1:])
        return ids

    def _tokenised(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids


# Characters that no text means anything by: of the basic plane, and of planes 15 and 16.
_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


def _character_not_in(text: str) -> str:
    taken = set(text)
    free = (chr(code) for code in chain(*_PRIVATE_USE) if chr(code) not in taken)
    mark = next(free, None)
    if mark is None:
        raise DataError(
            "The messages name a control token and hold every private-use character of Unicode, so that none is left to "
            "stand for the name. Take one of these characters out."
        )
    return mark


def _completion(messages: Sequence[Message], prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
    whole = _render(messages, tokenizer, add_generation_prompt=False)
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    # The template writes something else for a past turn than it asks with; the answer itself is then what is taught.
    return messages[-1].content


def _render(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool) -> str:
    plain = tokenizer.chat_template is None
    rendered = tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in messages],
        chat_template=_PLAIN_TEMPLATE if plain else None,
        add_generation_prompt=add_generation_prompt,
        tokenize=False,
    )
    # A chat template writes the beginning-of-sequence token itself; ours leaves it to the tokenizer's own habit.
    return f"{_usual_start(tokenizer)}{rendered}" if plain else str(rendered)


def _usual_start(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the beginning-of-sequence token if the tokenizer puts it before a text of its own accord, else nothing."""
    before, _ = special_tokens_around(tokenizer)
    return tokenizer.bos_token if tokenizer.bos_token_id is not None and tokenizer.bos_token_id in before else ""
