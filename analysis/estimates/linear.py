"""Least squares with an error that fits small samples: pooled with t(n − p), or CR2 by clusters with Satterthwaite df.

CR2 and its degrees of freedom: Bell & McCaffrey 2002; Pustejovsky & Tipton 2018. statsmodels has CR1 only.
Legend: N rows, K columns, G clusters, M rows of one cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from analysis.design.points import Index
from analysis.tables.variables import Array

MOST_ROWS = 2000  # above this the robust error takes G − 1 degrees of freedom, which by then differ little
MOST_AT_ONCE = 4_000_000  # numbers in the blocks of clusters that are decomposed together
TINY = 1e-8
SPREAD = 1e-10  # relative to the outcome's own: residuals below this are rounding


@dataclass(frozen=True)
class Contrast:
    """A linear combination of coefficients: value, standard error, degrees of freedom."""

    value: float
    se: float
    df: float

    @property
    def p(self) -> float | None:
        """Two-sided p of zero; None without an error."""
        return float(2 * stats.t.sf(abs(self.value) / self.se, self.df)) if self.se > 0 and self.df > 0 else None

    def interval(self, level: float = 0.95) -> tuple[float | None, float | None]:
        """Student interval; None without an error."""
        if not (self.se > 0 and self.df > 0):
            return None, None
        half = float(stats.t.ppf(0.5 + level / 2, self.df)) * self.se
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Fit:
    """A least-squares fit whose contrasts know their error."""

    x_NK: Array
    beta_K: Array
    rest_N: Array
    bread_KK: Array
    cluster_N: Index | None
    noise: float

    @property
    def df(self) -> int:
        """Rows left over."""
        return len(self.x_NK) - self.x_NK.shape[1]

    def contrast(self, c_K: Array) -> Contrast:
        """Value and error of c · β."""
        value = float(c_K @ self.beta_K)
        if self.df < 1 or self.noise <= 0:
            return Contrast(value, float("nan"), 0)
        if self.cluster_N is None:
            variance = float(self.rest_N @ self.rest_N) / self.df * float(c_K @ self.bread_KK @ c_K)
            return Contrast(value, float(np.sqrt(variance)), self.df)
        return self._clustered(value, c_K)

    @cached_property
    def _apart_NN(self) -> Array:
        """Squares of I − H, of few rows."""
        hat_NN = self.x_NK @ self.bread_KK @ self.x_NK.T
        return np.square(np.eye(len(hat_NN)) - hat_NN)

    def _clustered(self, value: float, c_K: Array) -> Contrast:
        cluster_N = np.asarray(self.cluster_N)
        direction_K = self.bread_KK @ c_K
        if cluster_N.max() + 1 == len(cluster_N):  # every row is its own cluster: HC2
            leverage_N = np.einsum("nk,kl,nl->n", self.x_NK, self.bread_KK, self.x_NK)
            room_N = np.where(1 - leverage_N > TINY, 1 - leverage_N, np.inf)
            square_N = (self.x_NK @ direction_K) ** 2 / room_N
            variance = float(square_N @ self.rest_N**2)
            if len(cluster_N) > MOST_ROWS:
                return Contrast(value, float(np.sqrt(variance)), self.df)
            spread = float(square_N @ self._apart_NN @ square_N)
            total = float(square_N @ np.where(np.isfinite(room_N), room_N, 0.0))
            return Contrast(value, float(np.sqrt(variance)), total**2 / spread if spread > 0 else 0.0)
        n_clusters = int(cluster_N.max()) + 1
        weight_N = self._rooted_NK @ direction_K
        scores = np.bincount(cluster_N, weights=weight_N * self.rest_N, minlength=n_clusters)
        se = float(np.sqrt(scores @ scores))
        if len(cluster_N) > MOST_ROWS:
            return Contrast(value, se, len(np.unique(cluster_N)) - 1)
        own_NG = np.zeros((len(cluster_N), n_clusters))
        own_NG[np.arange(len(cluster_N)), cluster_N] = weight_N
        apart_NG = own_NG - self.x_NK @ (self.bread_KK @ (self.x_NK.T @ own_NG))
        gram = apart_NG.T @ apart_NG
        squares = float((gram**2).sum())
        return Contrast(value, se, float(np.trace(gram)) ** 2 / squares if squares > 0 else 0.0)

    @cached_property
    def _rooted_NK(self) -> Array:
        """Rows of each cluster times the inverse root of its block of I − H; clusters of one size at a time."""
        cluster_N = np.asarray(self.cluster_N)
        order, counts = np.argsort(cluster_N, kind="stable"), np.bincount(cluster_N)
        starts, rooted_NK = np.cumsum(counts) - counts, np.empty_like(self.x_NK, dtype=np.float64)
        for size in np.unique(counts[counts > 0]):
            found = np.flatnonzero(counts == size)
            for some in np.array_split(found, -(-len(found) * size**2 // MOST_AT_ONCE)):
                rows_GM = order[starts[some][:, None] + np.arange(size)]
                own_GMK = self.x_NK[rows_GM]
                block_GMM = np.eye(size) - own_GMK @ self.bread_KK @ own_GMK.transpose(0, 2, 1)
                rooted_NK[rows_GM] = _root_inverse(block_GMM) @ own_GMK
        return rooted_NK

    def joint_p(self, columns: Index) -> float | None:
        """P that these coefficients are all zero: F if the error is pooled, else Bonferroni over what is tested."""
        if self.df < 1 or self.noise <= 0 or not len(columns):
            return None
        if self.cluster_N is None:
            own = self.beta_K[columns]
            middle = np.linalg.solve(self.bread_KK[np.ix_(columns, columns)], own)
            f = float(own @ middle) / len(columns) / (float(self.rest_N @ self.rest_N) / self.df)
            return float(stats.f.sf(f, len(columns), self.df))
        p = [self.contrast(c).p for c in _against_mean(columns, len(self.beta_K))]
        known = [x for x in p if x is not None]
        return min(1.0, len(p) * min(known)) if known else None


def _against_mean(columns: Index, size: int) -> list[Array]:
    """Each level against the mean of all, where the first level has no column."""
    k = len(columns)
    if k == 1:
        return [np.eye(size)[columns[0]]]
    made = []
    for level in range(k + 1):
        c = np.zeros(size)
        c[columns] = -1 / (k + 1)
        if level:
            c[columns[level - 1]] += 1
        made.append(c)
    return made


def _root_inverse(matrices_GMM: Array) -> Array:
    """Symmetric inverse square roots; directions that are fitted without rest count nothing."""
    values, vectors = np.linalg.eigh(matrices_GMM)
    scale = np.where(values > TINY, 1 / np.sqrt(np.where(values > TINY, values, 1.0)), 0.0)
    result: Array = (vectors * scale[:, None, :]) @ vectors.transpose(0, 2, 1)
    return result


def fit(y_N: Array, x_NK: Array, cluster_N: Index | None = None) -> Fit:
    """Fit a matrix of full column rank."""
    bread_KK: Array = np.asarray(np.linalg.pinv(x_NK.T @ x_NK), dtype=np.float64)
    beta_K = bread_KK @ (x_NK.T @ y_N)
    rest_N = y_N - x_NK @ beta_K
    spread = float(np.abs(y_N - y_N.mean()).max(initial=0.0))
    rest = float(np.abs(rest_N).max(initial=0.0))
    return Fit(x_NK, beta_K, rest_N, bread_KK, cluster_N, rest if rest > SPREAD * max(spread, 1e-300) else 0.0)


def independent(base_NK: Array, more_NK: Array) -> Array:
    """Whether each further column adds to the rank of the ones before it (booleans)."""
    found = []
    basis = np.linalg.qr(base_NK)[0] if base_NK.shape[1] else np.zeros((len(more_NK), 0))
    for column in more_NK.T:
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)
        length = float(np.linalg.norm(rest))
        new = length > 1e-7 * max(float(np.linalg.norm(column)), 1e-300)
        found.append(new)
        if new:
            basis = np.column_stack([basis, rest / length])
    return np.array(found, dtype=bool)
