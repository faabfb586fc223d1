"""
F1 and exact match of SQuAD 1.1: Rajpurkar et al., 2016, section 6.1, and its evaluation script.

Answers are compared in lower case, without punctuation, articles and superfluous white space; a
question counts with the reference answer that it agrees with best.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """An answer as it is compared: the ASCII punctuation goes, then articles, then spaces."""
    bare = answer.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact(answer: str, reference: str) -> bool:
    """Whether two answers are the same once normalised."""
    return normalised(answer) == normalised(reference)


def f1(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall over the words of two answers, 0 to 1."""
    got, want = normalised(answer).split(), normalised(reference).split()
    common = (Counter(got) & Counter(want)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(got), common / len(want)
    return 2 * precision * recall / (precision + recall)


def scores(answers: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """
    ByteMLPerf's `F1 Score` and `Exact Match` in percent over all questions of `references`.

    Both map the id of a question; one without an answer counts as wrong. Empty without a question.
    """
    if not references:
        return {}
    total = {"Exact Match": 0.0, "F1 Score": 0.0}
    for question, wanted in references.items():
        if question in answers:
            answer = answers[question]
            total["Exact Match"] += max(exact(answer, one) for one in wanted)
            total["F1 Score"] += max(f1(answer, one) for one in wanted)
    return {name: round(100 * value / len(references), 5) for name, value in total.items()}
