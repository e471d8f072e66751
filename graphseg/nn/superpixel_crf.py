"""ES-CRF, messages between pixels by a learned CRF and their superpixels, and the mean-field CRF it is compared with.

Paper: Zhu, Huang, Li, Wang, "ES-CRF: Embedded Superpixel CRF for Semantic Segmentation".
Equations: Eq. (1) a step of message passing on scores; Eq. (2) its pairwise function, label compatibility times
kernels; Eq. (3) the two Gaussian kernels; Eq. (4) the embedded CRF, on features; Eq. (5) its pairwise function, feature
compatibility times similarity; Eq. (6) similarity of appearance and position tokens; Eq. (7) feature compatibility;
Eq. (8) superpixel mean. Equations 9 to 15 say why it helps; tests check them on the gradients of class weights.
The paper leaves open: G, the pixels that send to i, is an argument; Z_i = 2 + |G_i|, the number of terms; a position is
given by sines and cosines of 8 wavelengths along each axis; the scores of Eq. (1) are probabilities, as in Equation 13,
and its Z_i makes them sum to 1.
Differs from the paper: weights of the terms, softmax, other tokens and compatibilities are options, off by default.

The convolution of Eq. (7) on [F_i, F_j] is a term of i plus a term of j. Along edges only numbers are kept, one for
each edge, and messages are summed without being made (`graphseg.ops.pairwise`). They are made where an explainer or a
hook wants to see them, or after `layer.fuse = False`, with the same values and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Linear, Parameter
from torch.nn.functional import linear
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import OptTensor

from graphseg._checks import (
    check_choice,
    check_integer,
    check_positive_int,
    check_same_device,
    check_shape,
    check_tensor,
)
from graphseg.nn._watched import is_watched
from graphseg.ops import edge_distance, pool, project, radius_edges
from graphseg.ops.pairwise import EdgeGroups, all_pairs_sum, edge_dot, edge_sum

__all__ = ["EmbeddedSuperpixelCRF", "MeanFieldCRF"]


def position_embedding(pos: Tensor, channels: int) -> Tensor:
    """`[P, channels]`: sines and cosines of x, then of y, at wavelengths from 2 pi to almost 20000 pi pixels."""
    dtype = torch.promote_types(pos.dtype, torch.float32)
    K = channels // 4
    frequency = 10000 ** -(torch.arange(K, dtype=dtype, device=pos.device) / K)  # [K]
    angle = pos.to(dtype).unsqueeze(2) * frequency  # [P, 2, K]
    return torch.cat([angle.sin(), angle.cos()], 2).flatten(1)  # [P, 4 K]


def feature_compatibility(left: Tensor | None, right: Tensor, edge_index: Tensor) -> Tensor:
    """mu(i, j) [E] of terms [P] of the target i and of the source j."""
    source, target = edge_index
    term = project(right, source) if left is None else project(left, target) + project(right, source)
    return term.sigmoid()  # Eq. (7)


def softmax_over_sources(weight: Tensor, target: Tensor, num_nodes: int) -> Tensor:
    """Weights [E] made to sum to 1 over the edges of each target; those of -inf become 0."""
    top = pool(weight.detach(), target, num_nodes, "max", valid=weight != -torch.inf)  # [P]
    part = (weight - project(top, target)).exp()
    total = pool(part, target, num_nodes, "sum")  # [P], 0 without edges
    return part / project(total.masked_fill(total == 0, 1), target)


@torch.compiler.disable
def superpixel_mean(x: Tensor, assignment: Tensor, batch: Tensor | None) -> Tensor:
    """The mean of x [P, C] over the superpixel of each pixel; superpixels end with their image."""
    ids = assignment.long()
    if batch is not None and len(ids):
        if int(ids.min()) < 0:
            raise ValueError(f"got assignment id {int(ids.min())}, expected ids of at least 0")
        ids = ids - project(pool(ids, batch, reduce="min"), batch)  # collation may have shifted them
        ids = batch * (ids.max() + 1) + ids
    return project(pool(x, ids), ids)  # Eq. (8)


def gaussian_kernels(near: Tensor, alike: Tensor, weight: Tensor, theta: Tensor) -> Tensor:
    """k(i, j) [E] of squared distances in position and color, weights (w1, w2) and scales (alpha, beta, gamma)."""
    alpha, beta, gamma = (2 * theta.square()).unbind()
    return weight[0] * (-near / alpha - alike / beta).exp() + weight[1] * (-near / gamma).exp()  # Eq. (3)


def log_partition(total: Tensor, update: str) -> Tensor:
    """Logarithms of probabilities [P, M] of a step's sums: divided by their sum, or by that of their exponentials."""
    if update == "exp":
        return total.log_softmax(1)
    total = total.clamp(min=math.sqrt(torch.finfo(total.dtype).tiny))  # negative compatibilities may outweigh the rest
    return (total / total.sum(1, keepdim=True)).log()  # Eq. (1)


class _PixelMessages(MessagePassing):
    """Sums of what pixels send, weighted edge by edge."""

    def __init__(self) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.fuse = True

    def weighted_sum(self, weight: Tensor, x: Tensor, edges: EdgeGroups, given: bool = True) -> Tensor:
        """[P, C], the sum of weight[e] x[j] over the edges e = (j, i) of each i.

        The masks of explainers are for edges that were given, not for those made here.
        """
        if (self.fuse and not is_watched(self, _PixelMessages)) or (self.explain and not given):
            return edge_sum(weight, x, edges)
        # propagate_type: (x: Tensor, weight: Tensor)
        return self.propagate(edges.edge_index, x=x, weight=weight)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return weight.unsqueeze(1) * x_j  # [E, C]


class EmbeddedSuperpixelCRF(_PixelMessages):
    """The embedded superpixel CRF of Eq. (4) to Eq. (8), on pixels with features F, color I and position p.

        F*_i = (F_i + sum_{j in G_i, j != i} psi(i, j) F_j + F^S_i) / Z_i
        psi(i, j) = sigmoid(conv[F_i, F_j]) (conv([I_i, p_i]) . conv([I_j, p_j]))
        F^S_i = mean of F over the superpixel of i

    The paper's ablation (pairwise or superpixel term alone) is a weight of 0. A published variant of it is
    `norm="none", mu="neighbour", tokens="split", exclude_self=False, pairwise_weight=0.2, superpixel_weight=0.1` on a
    3 x 3 window of dilation 2: `offset_edges(H, W, affinity_offsets([2]), directed=True)`, with self-loops.

    Args:
        channels: C of the features.
        image_channels: of the image.
        token_channels: T of the tokens whose dot product is the similarity; it is not scaled.
        norm: "degree": Z_i = 2 + |G_i|, with other weights of the terms 1 + superpixel_weight + pairwise_weight |G_i|;
            "none": Z_i = 1; "softmax": psi is replaced by its softmax over G_i, and Z_i = 1.
        mu: "pair": the compatibility of Eq. (7); "neighbour": sigmoid(conv F_j).
        tokens: "joint": one convolution of color and position together; "split": half of the token from the color,
            half from the position.
        position_channels: of the position embedding; a multiple of 4.
        exclude_self: whether i is left out of G_i, as in Eq. (4).
        pairwise_weight: of the messages, at least 0.
        superpixel_weight: of the superpixel mean, at least 0.
    """

    def __init__(
        self,
        channels: int,
        image_channels: int = 3,
        token_channels: int = 64,
        norm: str = "degree",
        mu: str = "pair",
        *,
        tokens: str = "joint",
        position_channels: int = 32,
        exclude_self: bool = True,
        pairwise_weight: float = 1.0,
        superpixel_weight: float = 1.0,
    ) -> None:
        check_positive_int("channels", channels)
        check_positive_int("image_channels", image_channels)
        check_positive_int("token_channels", token_channels)
        check_choice("norm", norm, ("degree", "none", "softmax"))
        check_choice("mu", mu, ("pair", "neighbour"))
        check_choice("tokens", tokens, ("joint", "split"))
        check_positive_int("position_channels", position_channels)
        if position_channels % 4:
            raise ValueError(f"got position_channels={position_channels}, expected a multiple of 4")
        if tokens == "split" and token_channels % 2:
            raise ValueError(f"got token_channels={token_channels} with tokens='split', expected an even number")
        for name, value in (("pairwise_weight", pairwise_weight), ("superpixel_weight", superpixel_weight)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"got {name}={value}, expected a finite number of at least 0")
        super().__init__()
        self.channels, self.image_channels, self.token_channels = channels, image_channels, token_channels
        self.norm, self.mu, self.tokens, self.exclude_self = norm, mu, tokens, exclude_self
        self.position_channels = position_channels
        self.pairwise_weight, self.superpixel_weight = float(pairwise_weight), float(superpixel_weight)
        self.compatibility = Linear(2 * channels if mu == "pair" else channels, 1)
        if tokens == "joint":
            self.token = Linear(image_channels + position_channels, token_channels)
        else:
            self.color_token = Linear(image_channels, token_channels // 2)
            self.position_token = Linear(position_channels, token_channels // 2)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for layer in self.children():
            if isinstance(layer, Linear):
                layer.reset_parameters()

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        pos: Tensor,
        edge_index: OptTensor,
        assignment: OptTensor,
        batch: OptTensor = None,
    ) -> Tensor:
        """The refined features F*.

        Args:
            x: `[P, channels]` features F, floating-point.
            image: `[P, image_channels]` color of each pixel, floating-point, in [0, 1].
            pos: `[P, 2]` (x, y), floating-point, in pixels.
            edge_index: `[2, E]` int64, row 0 the sender j, row 1 the receiver i: all edges into i are its G_i. A pair
                that sends both ways has two edges (`directed=True` of `offset_edges`). None: G_i are all pixels of
                the image of i, in time quadratic in them (with mu="neighbour" and no softmax linear) and memory
                linear.
            assignment: `[P]` integers, the superpixel of each pixel. None only where superpixel_weight is 0.
            batch: `[P]` int64, the image of each pixel. Superpixels of one id in two images are two. Default: one
                image.

        Returns:
            `[P, channels]`, of x's dtype (computed at least in float32).

        Raises:
            TypeError: on tensors of other dtypes.
            ValueError: on sizes or devices that do not fit, or ids outside [0, P).
        """
        self._check(x, image, pos, assignment, batch)
        features = x.to(torch.promote_types(x.dtype, torch.float32))
        total, Z = features, torch.ones(1, dtype=features.dtype, device=x.device)
        if self.pairwise_weight:
            token, terms = self._tokens(image, pos), self._compatibility_terms(x)
            message, degree = self._messages(features, token, *terms, edge_index, batch)
            total = total.add(message, alpha=self.pairwise_weight)
            Z = Z + self.pairwise_weight * degree.to(Z.dtype).unsqueeze(1)  # [P, 1]
        if self.superpixel_weight and assignment is not None:
            mean = superpixel_mean(features, assignment, batch)  # [P, C]
            total = total.add(mean, alpha=self.superpixel_weight)
            Z = Z + self.superpixel_weight
        return (total / Z if self.norm == "degree" else total).to(x.dtype)  # Eq. (4)

    # Compiled, it would be cut at each kernel and each look at ids.
    @torch.compiler.disable
    def _messages(
        self,
        x: Tensor,
        token: Tensor,
        left: Tensor | None,
        right: Tensor,
        edge_index: Tensor | None,
        batch: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """What G_i sends to each i [P, C], and how many they are [P]."""
        P = x.size(0)
        if edge_index is None:
            sizes = torch.bincount(batch) if batch is not None else torch.tensor([P], device=x.device)  # [B]
            count = sizes[batch] if batch is not None else sizes.expand(P)
            softmax = self.norm == "softmax"
            message = all_pairs_sum(
                x, token, left, right, batch, softmax=softmax, exclude_self=self.exclude_self
            )  # [P, C], Eq. (5) to Eq. (7)
            return message, count - int(self.exclude_self)
        edges = EdgeGroups(edge_index, P)
        source, target = edge_index
        similarity = edge_dot(token, token, edges)  # [E], Eq. (6)
        psi = feature_compatibility(left, right, edge_index) * similarity  # [E], Eq. (5)
        loop = source == target if self.exclude_self else torch.zeros_like(target, dtype=torch.bool)
        degree = target.new_zeros(P).index_add_(0, target, (~loop).long())
        psi = psi.masked_fill(loop, -torch.inf if self.norm == "softmax" else 0.0)
        if self.norm == "softmax":
            psi = softmax_over_sources(psi, target, P)
        return self.weighted_sum(psi.to(x.dtype), x, edges), degree

    def _compatibility_terms(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """The terms [P] of a pixel as i and as j, bias included, whose sum is conv[F_i, F_j]."""
        weight = self.compatibility.weight.view(-1, self.channels)
        terms = linear(x.to(weight.dtype), weight)  # [P, 2] or [P, 1]
        terms = terms.to(torch.promote_types(terms.dtype, torch.float32))
        return (terms[:, 0] if self.mu == "pair" else None), terms[:, -1] + self.compatibility.bias

    def _tokens(self, image: Tensor, pos: Tensor) -> Tensor:
        """conv([I, p]) `[P, token_channels]`."""
        position = position_embedding(pos, self.position_channels)
        if self.tokens == "joint":
            return self.token(torch.cat([image, position], 1).to(self.token.weight.dtype))
        dtype = self.color_token.weight.dtype
        return torch.cat([self.color_token(image.to(dtype)), self.position_token(position.to(dtype))], 1)

    def _check(self, x: Tensor, image: Tensor, pos: Tensor, assignment: Tensor | None, batch: Tensor | None) -> None:
        check_pixels(x, image, pos, batch)
        for name, given, expected in (("x", x, "channels"), ("image", image, "image_channels")):
            if given.size(1) != getattr(self, expected):
                raise ValueError(
                    f"got {given.size(1)} channels in {name}, expected {expected}={getattr(self, expected)}"
                )
        if assignment is not None:
            check_integer("assignment", check_tensor("assignment", assignment))
            check_shape("assignment", assignment, (x.size(0),))
            check_same_device(x=x, assignment=assignment)
        elif self.superpixel_weight:
            raise ValueError(f"got no assignment, expected one with superpixel_weight={self.superpixel_weight}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, norm={self.norm!r}, mu={self.mu!r})"


class MeanFieldCRF(_PixelMessages):
    """Mean-field inference of a CRF on class scores, Eq. (1) to Eq. (3), as post-processing or as trained layers.

        Y*_i = (Y_i + sum_{j in G_i, j != i} psi(i, j) Q_j) / Z_i,   psi(i, j) = mu k(i, j)
        k(i, j) = w1 exp(-|p_i - p_j|^2 / 2 alpha^2 - |I_i - I_j|^2 / 2 beta^2) + w2 exp(-|p_i - p_j|^2 / 2 gamma^2)

    Y are the probabilities of the network, Q those of the step before (at first Y), and mu, [M, M], says how much class
    l' at j speaks for class l at i: at first the identity. Z_i makes the classes of a pixel sum to 1. With update="exp"
    it is the mean field of DenseCRF and CRF-RNN, where Y_i are scores and Q_i = softmax(Y_i + sum ...).

    The paper's Joint-CRF is `trained=True`, trained with the network; its Vanilla-CRF is `trained=False`, offline: the
    parameters stay as given, and no gradient passes.

    Args:
        num_classes: M.
        num_steps: how often Eq. (1) is applied.
        weight: (w1, w2) of the appearance and the smoothness kernel. The default suits windows of the default radius.
        theta: (alpha, beta, gamma), above 0: alpha and gamma in pixels, beta in units of the image. The parameter is
            its logarithm, so that training keeps it there.
        update: "sum" or "exp", see above.
        trained: whether weight, theta and mu are learnt, and gradients pass.
        radius: of the window that stands in for a missing edge_index, in pixels.
    """

    def __init__(
        self,
        num_classes: int,
        num_steps: int = 5,
        *,
        weight: Sequence[float] = (0.3, 0.1),
        theta: Sequence[float] = (80.0, 0.05, 3.0),
        update: str = "sum",
        trained: bool = True,
        radius: float = 3.0,
    ) -> None:
        check_positive_int("num_classes", num_classes)
        check_positive_int("num_steps", num_steps)
        check_choice("update", update, ("sum", "exp"))
        if len(weight) != 2 or not all(map(math.isfinite, weight)):
            raise ValueError(f"got weight={weight}, expected 2 finite numbers")
        if len(theta) != 3 or not all(0 < t < math.inf for t in theta):
            raise ValueError(f"got theta={theta}, expected 3 finite numbers above 0")
        if not radius > 0:
            raise ValueError(f"got radius={radius}, expected a number above 0")
        super().__init__()
        self.num_classes, self.num_steps, self.update_rule = num_classes, num_steps, update
        self.initial_weight, self.initial_theta = tuple(map(float, weight)), tuple(map(float, theta))
        self.trained, self.radius = bool(trained), float(radius)
        self.weight = Parameter(torch.empty(2), requires_grad=self.trained)
        self.log_theta = Parameter(torch.empty(3), requires_grad=self.trained)
        self.compatibility = Parameter(torch.empty(num_classes, num_classes), requires_grad=self.trained)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.weight.copy_(torch.tensor(self.initial_weight, dtype=torch.float64))
            self.log_theta.copy_(torch.tensor(self.initial_theta, dtype=torch.float64).log())
            self.compatibility.copy_(torch.eye(self.num_classes))

    def forward(
        self, x: Tensor, image: Tensor, pos: Tensor, edge_index: OptTensor = None, batch: OptTensor = None
    ) -> Tensor:
        """The refined scores.

        Args:
            x: `[P, num_classes]` scores (logits) of the network, floating-point.
            image: `[P, K]` color of each pixel, floating-point, in [0, 1].
            pos: `[P, 2]` (x, y), floating-point, in pixels.
            edge_index: `[2, E]` int64, row 0 the sender j, row 1 the receiver i. None: all pixels of one image within
                `radius`. Self-loops are left out.
            batch: `[P]` int64, sorted: the image of each pixel; only read where edge_index is None.

        Returns:
            `[P, num_classes]` logarithms of probabilities, of x's dtype (computed at least in float32): they take the
            place of the scores, in a cross entropy and in an argmax. Under update="sum" all are finite.

        Raises:
            TypeError: on tensors of other dtypes.
            ValueError: on sizes or devices that do not fit, or ids outside [0, P).
        """
        check_pixels(x, image, pos, batch)
        if x.size(1) != self.num_classes:
            raise ValueError(f"got {x.size(1)} classes in x, expected num_classes={self.num_classes}")
        given = edge_index is not None
        if edge_index is None:
            edge_index = radius_edges(pos.detach(), self.radius, batch)
        edges = EdgeGroups(edge_index, x.size(0))
        gradients = self.trained and torch.is_grad_enabled()
        with torch.set_grad_enabled(gradients), torch.autocast(x.device.type, enabled=False):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            return self._infer(wide, image, pos, edges, given).to(x.dtype)

    @torch.compiler.disable
    def _infer(self, x: Tensor, image: Tensor, pos: Tensor, edges: EdgeGroups, given: bool) -> Tensor:
        near = edge_distance(pos, edges.edge_index).square().to(x.dtype)  # [E]
        alike = edge_distance(image, edges.edge_index).square().to(x.dtype)  # [E]
        kernel = gaussian_kernels(near, alike, self.weight.to(x.dtype), self.log_theta.to(x.dtype).exp())
        kernel = kernel.masked_fill(edges.edge_index[0] == edges.edge_index[1], 0)
        mu = self.compatibility.to(x.dtype)
        log_probability = x.log_softmax(1)  # [P, M]
        unary = x if self.update_rule == "exp" else log_probability.exp()
        for _ in range(self.num_steps):
            message = self.weighted_sum(kernel, log_probability.exp(), edges, given) @ mu.t()  # [P, M], Eq. (2)
            log_probability = log_partition(unary + message, self.update_rule)
        return log_probability

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_classes}, num_steps={self.num_steps}, update={self.update_rule!r}, "
            f"trained={self.trained})"
        )


def check_pixels(x: Tensor, image: Tensor, pos: Tensor, batch: Tensor | None) -> None:
    """Raises TypeError or ValueError unless x, image, pos and batch describe the same pixels."""
    for name, given in (("x", x), ("image", image), ("pos", pos)):
        if not check_tensor(name, given).is_floating_point():
            raise TypeError(f"got dtype {given.dtype} for {name}, expected a floating-point dtype")
    check_shape("x", x, (None, None))
    check_shape("image", image, (x.size(0), None))
    check_shape("pos", pos, (x.size(0), 2))
    if batch is not None:
        if check_tensor("batch", batch).dtype != torch.int64:
            raise TypeError(f"got dtype {batch.dtype} for batch, expected torch.int64")
        check_shape("batch", batch, (x.size(0),))
        if batch.numel() and int(batch.min()) < 0:
            raise ValueError(f"got batch={int(batch.min())}, expected ids of at least 0")
    check_same_device(x=x, image=image, pos=pos, batch=batch)
