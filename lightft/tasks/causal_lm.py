"""Causal language modelling: learn to write the answer to an instruction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.batching import inference_batches
from lightft.models import ModelLoader
from lightft.records import Example, Message, Prediction
from lightft.tasks.head import (
    IGNORED,
    TASKS,
    Encoding,
    forward_in_batches,
    pad_batch,
    pad_labels,
    special_tokens_around,
)
from lightft.tasks.losses import summed_cross_entropy

__all__ = ["CausalLM", "render_prompt"]

# What a base model without a chat template is trained and asked with (the instruction format of Stanford Alpaca).
_PLAIN_TEMPLATE = (
    "{% set names = {'system': 'System', 'user': 'Instruction', 'assistant': 'Response'} %}"
    "{% for message in messages %}### {{ names[message.role] }}:\n"
    "{{ message.content }}{{ eos_token if message.role == 'assistant' }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)


@TASKS.register("causal-lm")
@dataclass(frozen=True)
class CausalLM:
    """Instruction tuning with the loss on the answers alone.

    The prompt is rendered with the model's chat template and tokenised by itself, exactly as it is for generation; the
    answer's tokens and the end-of-turn token follow and carry the loss. Padding is masked by position, never by token,
    so that an end-of-sequence token that doubles as padding is learned. A row that is longer than ``max_length`` is cut
    at its end and counted; its missing end is then not taught.

    Attributes:
        labels: empty; there are none.
        max_new_tokens: how much is written per example when a test split is predicted; 0 only measures likelihood.
    """

    labels: tuple[str, ...] = ()
    max_new_tokens: int = 0
    metrics: tuple[str, ...] = ("perplexity",)

    name: ClassVar[str] = "causal-lm"
    task_type: ClassVar[str] = "CAUSAL_LM"

    def __post_init__(self) -> None:
        if self.max_new_tokens and self.metrics == ("perplexity",):
            object.__setattr__(self, "metrics", ("perplexity", "exact_match", "answer_f1"))

    def load_model(self, loader: ModelLoader) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the base model with its own output layer."""
        return loader.replace(task=self.name, labels=None).load_model()

    def encode(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[list[Encoding], Mapping[str, int]]:
        """Return one row per example.

        Counts: ``truncated_texts`` that were cut, and ``texts_without_loss`` whose prompt alone fills the window.
        """
        counts: Counter[str] = Counter()
        encodings = []
        for row, example in enumerate(examples):
            ids, labels = self._tokens(example, tokenizer)
            counts["truncated_texts"] += len(ids) > max_length
            ids, labels = ids[:max_length], labels[:max_length]
            # Nothing precedes the first token, so it cannot be predicted.
            labels[0] = IGNORED
            counts["texts_without_loss"] += all(label == IGNORED for label in labels)
            encodings.append(Encoding(row, ids, labels))
        return encodings, +counts

    def collate(self, encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
        """Return the padded batch; ``labels`` (rows, longest) are the ids themselves where there is loss."""
        batch = pad_batch(encodings, tokenizer)
        return {**batch, "labels": pad_labels(encodings, batch["input_ids"].shape[1])}

    def loss(self, logits: Tensor, labels: Tensor, model: Module) -> Tensor:
        """Summed cross-entropy of logits (rows, tokens, vocabulary): position i predicts token i + 1."""
        del model
        return summed_cross_entropy(logits[:, :-1], labels[:, 1:])

    def predict(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        *,
        max_length: int,
        validating: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """Return the log-likelihood of each gold answer and, in a final test, the answer written greedily."""
        encodings, _ = self.encode(examples, tokenizer, max_length)
        likelihood = [0.0] * len(examples)
        tokens = [0] * len(examples)
        for rows, batch, logits in forward_in_batches(
            model, encodings, lambda part: self.collate(part, tokenizer), progress=progress
        ):
            targets = batch["labels"][:, 1:]
            log_probabilities = logits[:, :-1].log_softmax(-1)
            picked = log_probabilities.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            counted = targets != IGNORED
            for place, row in enumerate(rows):
                likelihood[row] = float(picked[place][counted[place]].sum())
                tokens[row] = int(counted[place].sum())
        answers = [""] * len(examples)
        if self.max_new_tokens and not validating:
            prompts = [[*example.context, Message("user", example.text)] for example in examples]
            answers = self.generate(model, tokenizer, prompts, max_new_tokens=self.max_new_tokens)
        return [
            Prediction(example.id, example.target, answer, log_likelihood=total, target_tokens=count)
            for example, answer, total, count in zip(examples, answers, likelihood, tokens, strict=True)
        ]

    def generate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        **options: Any,
    ) -> list[str]:
        """Return the answer to each conversation, in order; greedy unless ``options`` of ``model.generate`` say otherwise.

        Prompts are padded on the left, so that an answer does not depend on its neighbours in the batch.
        """
        prompts = [
            Encoding(row, tokenizer(render_prompt(messages, tokenizer), add_special_tokens=False)["input_ids"], [])
            for row, messages in enumerate(conversations)
        ]
        answers = [""] * len(prompts)
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        try:
            lengths = [len(prompt.input_ids) + max_new_tokens for prompt in prompts]
            for rows in inference_batches(lengths, max_tokens=8192, max_rows=32):
                batch = pad_batch([prompts[row] for row in rows], tokenizer, left=True)
                with torch.inference_mode():
                    written = model.generate(
                        **{key: value.to(device) for key, value in batch.items()},
                        max_new_tokens=max_new_tokens,
                        pad_token_id=tokenizer.pad_token_id,
                        # A checkpoint's own generation settings may sample; an evaluation must repeat.
                        **{"do_sample": False, "temperature": None, "top_p": None, "top_k": None, **options},
                    )
                texts = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
                for row, text in zip(rows, texts, strict=True):
                    answers[row] = text.strip()
        finally:
            model.train(was_training)
        return answers

    def _tokens(self, example: Example, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
        """Return ids and labels of a conversation whose assistant turns carry the loss, or of a ready text."""
        answer = example.target if isinstance(example.target, str) else ""
        if not example.text and not example.context:
            whole = tokenizer(answer)["input_ids"]
            whole = whole if whole and whole[-1] == tokenizer.eos_token_id else [*whole, tokenizer.eos_token_id]
            return whole, list(whole)
        messages = [*example.context, Message("user", example.text), Message("assistant", answer)]
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
            prompt_ids = tokenizer(prompt[len(rendered) :], add_special_tokens=False)["input_ids"]
            completion = _completion(messages[: turn + 1], prompt, tokenizer)
            answer_ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
            if not completion.rstrip().endswith(tokenizer.eos_token):
                answer_ids = [*answer_ids, tokenizer.eos_token_id]
            # What a template writes after the end of the turn (a line break) is layout, not answer.
            end = len(answer_ids) - answer_ids[::-1].index(tokenizer.eos_token_id)
            ids += prompt_ids + answer_ids
            labels += [IGNORED] * len(prompt_ids) + answer_ids[:end] + [IGNORED] * (len(answer_ids) - end)
            rendered = prompt + completion
        return ids, labels


def render_prompt(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text a model is asked with: the one place where a conversation becomes text, in training and after."""
    return _render(messages, tokenizer, add_generation_prompt=True)


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
