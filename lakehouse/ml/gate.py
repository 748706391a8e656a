"""The gate: whether a candidate becomes the champion. One frozen record of margins, one pure function.

mean WAPE over the reported folds of candidate, champion's recipe and seasonal naive; the data checks ─▶ Decision
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lakehouse.core.errors import DeclarationError
from lakehouse.core.rules import Finding

#: `ops/model_decisions`: one row each time the gate has spoken, or a person has.
DECISIONS = {
    "id": "string",
    "modelo": "string",
    "versao": "bigint",
    "receita_modelo": "string",
    "campeao_antes": "bigint",
    "promovido": "boolean",
    "motivo": "string",
    "ganho_ingenuo": "double",
    "ganho_campeao": "double",
    "numeros": "string",
    "run_id": "string",
    "decidido_em": "timestamp",
}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """By how much a candidate must be better, as a share of the other's mean WAPE at the short horizon.

    Args:
        over_naive: than the seasonal naive method; at the long horizon it must at least not be worse.
        over_champion: than the champion's recipe, fitted again on the same folds.
        fewest_folds: with fewer nothing is promoted.
    """

    over_naive: float = 0.10
    over_champion: float = 0.02
    fewest_folds: int = 8

    def __post_init__(self) -> None:
        if not (0 <= self.over_naive < 1 and 0 < self.over_champion < 1 and self.fewest_folds >= 8):
            raise DeclarationError(
                f"{self} cannot be a gate: margins are shares, the champion's above 0, over at least 8 folds.",
                remedy="Fix GATE in lakehouse/ml/promotion.py.",
            )


@dataclass(frozen=True)
class Decision:
    """What the gate decided. Gains are shares, None where there was nothing to compare with.

    `sound` is whether the candidate is a good one: promoted, or only no better than the champion.
    """

    promote: bool
    reason: str
    over_naive: float | None = None
    over_champion: float | None = None
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sound: bool = True

    def unless(self, reason: str) -> "Decision":
        """This decision, or a refusal for a reason that has nothing to do with the numbers."""
        return replace(self, promote=False, reason=reason) if reason and (self.promote or self.sound) else self


def decide(  # noqa: PLR0911 # one return for each reason
    gate: Gate,
    numbers: Mapping[str, Mapping[str, float]],
    *,
    short: int,
    horizon: int,
    champion: bool,
    findings: Sequence[Finding] = (),
) -> Decision:
    """Decide whether a candidate is promoted.

    Args:
        numbers: `backtest.summary` of the reported folds.
        champion: whether there is a champion to be better than.
        findings: the outcomes of the data checks.
    """
    mine, naive = numbers[f"candidato_{short}"], numbers[f"ingenuo_{short}"]
    over_naive = _gain(mine["wape"], naive["wape"])
    over_champion = _gain(mine["wape"], numbers[f"campeao_{short}"]["wape"]) if champion else None
    long_gain = _gain(numbers[f"candidato_{horizon}"]["wape"], numbers[f"ingenuo_{horizon}"]["wape"])

    def decided(promote: bool, reason: str, *, sound: bool = False) -> Decision:
        return Decision(promote, reason, over_naive, over_champion, numbers, sound or promote)

    if failed := [finding.rule for finding in findings if not finding.passed]:
        return decided(False, f"refused: the data checks {', '.join(failed)} did not pass")
    if mine["folds"] < gate.fewest_folds:
        return decided(False, f"refused: {mine['folds']:.0f} folds, {gate.fewest_folds} are needed")
    if over_naive is None or long_gain is None:
        return decided(False, "refused: seasonal naive makes no error, so there is nothing to be better than")
    if over_naive < gate.over_naive:
        return decided(False, f"refused: {over_naive:+.1%} against seasonal naive, {gate.over_naive:.0%} is needed")
    if long_gain < 0:
        return decided(False, f"refused: {long_gain:+.1%} against seasonal naive at {horizon} days")
    if champion and (over_champion is None or over_champion < gate.over_champion):
        gained = "nothing to gain" if over_champion is None else f"{over_champion:+.1%}"
        return decided(False, f"refused: {gained} against the champion's recipe, {gate.over_champion:.0%} is needed", sound=True)
    against = f", {over_champion:+.1%} against the champion's recipe" if over_champion is not None else "; there was no champion"
    return decided(True, f"promoted: {over_naive:+.1%} against seasonal naive{against}")


def _gain(mine: float, other: float) -> float | None:
    """How much less the error is, as a share of the other's; None when the other makes none, or either has no figure."""
    if not (math.isfinite(mine) and math.isfinite(other)) or other <= 0:
        return None
    return 1 - mine / other
