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
from lightft.tasks.answer_scores import answer_scores
from lightft.tasks.conversations import conversation_tokens, end_token, prompt_tokens
from lightft.tasks.head import (
    IGNORED,
    TASKS,
    Encoding,
    forward_in_batches,
    pad_batch,
    pad_labels,
)
from lightft.tasks.losses import summed_cross_entropy

__all__ = ["CausalLM", "WrittenAnswer"]


@dataclass(frozen=True)
class WrittenAnswer:
    """What a model wrote.

    Attributes:
        text: without control tokens, and without white space at its ends.
        cut: whether the model was stopped before it wrote an end token.
    """

    text: str
    cut: bool


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

    def training_loss(self, model: Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the same as ``loss`` of all logits, from those of the answers alone."""
        logits, targets = answer_scores(model, batch)
        return summed_cross_entropy(logits, targets)

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
        """Return the answer to each conversation, in order, as ``write`` does, but only the texts."""
        written = self.write(model, tokenizer, conversations, max_new_tokens=max_new_tokens, **options)
        return [answer.text for answer in written]

    def write(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        **options: Any,
    ) -> list[WrittenAnswer]:
        """Return the answer to each conversation, in order; greedy unless ``options`` of ``model.generate`` say otherwise.

        Prompts are padded on the left, so that an answer does not depend on its neighbours in the batch.
        """
        prompts = [Encoding(row, prompt_tokens(messages, tokenizer), []) for row, messages in enumerate(conversations)]
        answers = [WrittenAnswer("", cut=False)] * len(prompts)
        of_model = model.generation_config.eos_token_id
        options.setdefault("eos_token_id", tokenizer.eos_token_id if of_model is None else of_model)
        ends = _end_tokens(options["eos_token_id"])
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
                new_tokens = written[:, batch["input_ids"].shape[1] :]
                texts = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
                for row, text, tokens in zip(rows, texts, new_tokens.tolist(), strict=True):
                    answers[row] = WrittenAnswer(text.strip(), cut=ends.isdisjoint(tokens))
        finally:
            model.train(was_training)
        return answers

    def _tokens(self, example: Example, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
        """Return ids and labels of a conversation whose assistant turns carry the loss, or of a ready text."""
        answer = example.target if isinstance(example.target, str) else ""
        if not example.text and not example.context:
            whole = tokenizer(answer)["input_ids"]
            end = end_token(tokenizer)
            whole = whole if whole and whole[-1] == end else [*whole, end]
            return whole, list(whole)
        return conversation_tokens(
            [*example.context, Message("user", example.text), Message("assistant", answer)], tokenizer
        )


def _end_tokens(named: int | Sequence[int] | None) -> set[int]:
    """Return the tokens that end an answer, of which a model may have none, one or several."""
    if named is None:
        return set()
    return {named} if isinstance(named, int) else set(named)
