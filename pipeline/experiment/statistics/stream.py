"""The evidence of an experiment, updated episode by episode in constant time and memory."""

import math
from dataclasses import dataclass

from pipeline.experiment.errors import EpisodeInvalid
from pipeline.experiment.statistics.evidence import Evidence, outside, prediction
from pipeline.experiment.statistics.rules import Rules
from pipeline.experiment.statistics.sample_ratio import log_factor


@dataclass
class _Arm:
    count: int = 0
    total: float = 0.0
    """The sum of the returns."""
    residuals: float = 0.0
    """The sum of the squared differences of the returns from their predictions."""

    def add(self, returned: float, predicted: float = 0.0) -> None:
        self.count += 1
        self.total += returned
        self.residuals += (returned - predicted) ** 2


class _SampleRatio:
    """The e-value of the sample-ratio test."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._log_e = 0.0
        self._share = math.nan
        self._challengers = self._seen = 0

    def add(self, *, challenger: bool, share: float) -> None:
        """Count an episode that was reported."""
        if share != self._share:
            self._share, self._challengers, self._seen = share, 0, 0
        self._log_e += float(log_factor(challenger, share, self._challengers, self._seen))
        self._challengers += challenger
        self._seen += 1
        self.largest = max(self.largest, self._log_e)


class EvidenceStream:
    """Computes `evidence` one episode after the other; after each, `evidence` is the last row of the batch form."""

    def __init__(self, rules: Rules) -> None:
        self._expected_return = rules.expected_return
        self._low, self._high = rules.return_bounds or (-math.inf, math.inf)
        self._all, self._champion, self._challenger = _Arm(), _Arm(), _Arm()
        self._ratio = _SampleRatio()
        self._information = self._score = self._score_squares = self._score_weights = self._weight_squares = 0.0

    def add(self, *, challenger: bool, share: float, returned: float, reported: bool = True) -> None:
        """Add a settled episode; the episodes come in the order of their assignment. See `Episodes` for the arguments.

        Raises:
            EpisodeInvalid: The return is not finite or not between the rules' bounds, or the share not between 0 and 1.
        """
        index = self._all.count
        if not 0 < share < 1:
            raise EpisodeInvalid(index, f"its share is {share:g}, expected one between 0 and 1")
        if not math.isfinite(returned):
            raise EpisodeInvalid(index, f"its return is {returned}, expected a finite number")
        if not self._low <= returned <= self._high:
            raise EpisodeInvalid(index, outside(returned, self._low, self._high))
        f0, f1 = self._predictions()
        weight, score = share * (1 - share), (challenger - share) * (returned - (1 - share) * f1 - share * f0)
        self._information += weight
        self._score += score
        self._score_squares += score**2
        self._score_weights += weight * score
        self._weight_squares += weight**2
        self._all.add(returned)
        if challenger:
            self._challenger.add(returned, f1)
        else:
            self._champion.add(returned, f0)
        if reported:
            self._ratio.add(challenger=challenger, share=share)

    def _predictions(self) -> tuple[float, float]:
        pooled = prediction(self._expected_return, self._all.total, self._all.count)
        f0, f1 = (prediction(pooled, arm.total, arm.count) for arm in (self._champion, self._challenger))
        return f0, f1

    @property
    def evidence(self) -> Evidence:
        """The evidence of the episodes so far, as numbers. Without episodes there is no difference: it is NaN."""
        return Evidence(
            champions=self._champion.count,
            challengers=self._challenger.count,
            information=self._information,
            score=self._score,
            score_squares=self._score_squares,
            score_weights=self._score_weights,
            weight_squares=self._weight_squares,
            champion_residuals=self._champion.residuals,
            challenger_residuals=self._challenger.residuals,
            ratio=self._ratio.largest,
        )
