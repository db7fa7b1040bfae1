"""Detects look-ahead and state: draws the rows of pass B, and compares the answers of both passes (see scorer.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nanogpt_target.channel import Rejected

CUTS = 256  # of pass B, one per row; a split with fewer rows repeats its rows
SUSPECTS = 64  # further cuts, if there is an earlier run to compare with
LOSS_TOLERANCE = 0.0002  # bits per byte, mean over the cuts; the model's own noise is added
LOSS_CAP = 0.001  # bound on that sum: look-ahead of a noisier model could not be detected
FLOOR, CAP = 2e-3, 0.25  # bounds of the tolerance for one log-probability, in nats
NOISE_FACTOR = 8.0  # that tolerance in units of the largest difference within pass A
LN2 = float(np.log(2.0))


@dataclass(frozen=True)
class Sample:
    """Rows of pass B: ``ids`` int64 [N, T] of the split's ``rows`` [N], replaced from position ``cuts`` [N] on."""

    rows: np.ndarray
    cuts: np.ndarray
    ids: np.ndarray

    @property
    def fair(self) -> np.ndarray:
        """bool [N, T]: the inputs up to this position are those of pass A."""
        return np.arange(self.ids.shape[1])[None, :] < self.cuts[:, None]


def _orders(size: int, random: np.random.Generator) -> np.ndarray:
    """CUTS numbers below ``size``: consecutive random permutations."""
    return np.concatenate([random.permutation(size) for _ in range(-(-CUTS // size))])[:CUTS]


def suspects(gain: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At most SUSPECTS rows with cuts just after a target, drawn in proportion to the squared gain [N, T] (nats)."""
    chance = np.square(gain[:, :-1].clip(0.0, 1e3)).ravel()  # there is no text to cut after the last target
    possible = np.flatnonzero(chance)
    rank = np.log(chance[possible]) + random.gumbel(size=len(possible))
    rows, places = np.divmod(possible[np.argsort(-rank)[:SUSPECTS]], gain.shape[1] - 1)
    return rows, places + 1


def draw(
    ids: np.ndarray, decoys: np.ndarray, vocab: int, random: np.random.Generator, gain: np.ndarray | None = None
) -> Sample:
    """Draw the rows of pass B: shuffled, each with the suffix of a training row from its cut on.

    Rows and cuts are consecutive random permutations, so that all are used equally often, in small splits too. A
    repeated row gets a later cut each time, so that a process with a memory has not seen the text after it. The first
    replaced token always differs from the true one, so that every use of the next token is visible.

    Args:
        ids: int64 [N, T].
        decoys: rows of training text, uint16 [M, T + 1].
        vocab: V.
        random: source of the draws.
        gain: [N, T], improvement of each target over an earlier run, in nats.
    """
    length = ids.shape[1]
    rows, cuts = _orders(len(ids), random), 1 + _orders(length - 1, random)
    if gain is not None:
        more = suspects(gain, random)
        rows, cuts = np.concatenate([rows, more[0]]), np.concatenate([cuts, more[1]])
    turn = np.array([np.sum((rows == row) & (cuts < cut)) for row, cut in zip(rows, cuts, strict=True)])
    order = np.lexsort((random.random(len(rows)), turn))
    rows, cuts = rows[order], cuts[order]
    mixed = Sample(rows, cuts, ids[rows].copy())
    foreign = decoys[random.integers(len(decoys), size=len(rows)), :length].astype(np.int64)
    mixed.ids[~mixed.fair] = foreign[~mixed.fair]
    first = (np.arange(len(rows)), cuts)
    same = mixed.ids[first] == ids[rows, cuts]
    mixed.ids[first] = np.where(same, (mixed.ids[first] + 1) % vocab, mixed.ids[first])
    return mixed


def compare(a: np.ndarray, b: np.ndarray, sample: Sample, weights: np.ndarray, noise: np.ndarray) -> None:
    """Compare both passes on the sampled rows.

    Args:
        a: log-probabilities [N, T] in pass A, in nats.
        b: the same in pass B.
        sample: the rows of pass B.
        weights: bytes [N, T] of the targets.
        noise: differences in nats between two answers of one process to the same rows. The mean of an honest model
            over n cuts differs by the root mean square of the noise / √n; four times that is allowed.

    Raises:
        Rejected: predictions before a cut depend on text after it.
    """
    tolerance = min(max(FLOOR, NOISE_FACTOR * float(np.abs(noise).max())), CAP)
    apart = np.where(sample.fair, np.abs(b - a), 0.0)
    if apart.max() > tolerance:
        raise Rejected(
            f"looks ahead: other text after a position moved {int((apart > tolerance).sum())} of "
            f"{int(sample.fair.sum())} log-probabilities before it, by up to {apart.max():.3g} nats "
            f"(tolerance {tolerance:.2g})"
        )
    last = (np.arange(len(a)), sample.cuts - 1)
    counted = weights[last] > 0
    size = max(1, int(weights[last].sum()))
    difference = abs(float((b[last] - a[last])[counted].sum())) / LN2 / size
    allowed = LOSS_TOLERANCE + 4 * float(np.sqrt(np.mean(noise**2) * counted.sum())) / LN2 / size
    if difference > allowed:
        raise Rejected(
            f"looks ahead: the loss just before other text differs by {difference:.2g} bits per byte "
            f"(tolerance {allowed:.2g})"
        )


def check_noise(noise: np.ndarray, weights: np.ndarray) -> None:
    """Check that a model's own noise is small enough to detect look-ahead.

    Raises:
        Rejected: the noise is too large; the reason does not mention look-ahead as found.
    """
    largest, typical = float(np.abs(noise).max()), float(np.sqrt(np.mean(noise**2)))
    own = 4 * typical / LN2 / float(np.sqrt(CUTS)) / max(1.0, float(weights[weights > 0].mean()))
    if largest > CAP or LOSS_TOLERANCE + own > LOSS_CAP:
        raise Rejected(
            f"does not repeat itself: rows asked twice differ by {typical:.2g} nats (root mean square; at most "
            f"{largest:.2g}), too much to rule out look-ahead. Does the model keep state, or use dropout?"
        )


def steady(noise: np.ndarray, weights: np.ndarray, what: str = "the same rows, asked twice,") -> None:
    """Check that a model keeps no state: noise has both signs, while a model that learns from requests moves one way.

    Args:
        noise: [N, T], log-probabilities of rows asked again, minus those of the first time.
        weights: bytes [N, T] of the targets.
        what: subject of the reason.

    Raises:
        Rejected: the mean has moved by more than such noise moves it.
    """
    size = max(1, int(weights.sum()))
    by_row = np.where(weights > 0, noise, 0.0).sum(axis=1) / LN2 / size
    moved = abs(float(by_row.sum()))
    allowed = min(LOSS_TOLERANCE + 4 * float(np.sqrt(np.sum(by_row**2))), LOSS_CAP)
    if moved > allowed:
        raise Rejected(f"keeps state: {what} differ by {moved:.2g} bits per byte (tolerance {allowed:.2g})")
