"""DiffGCN, DGCNN and PointNet against the printed formulas, PyG's EdgeConv and each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.testing import assert_close
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import EdgeConv

from graphseg.nn.diff_gcn import DGCNNBlock, DiffGCNConv, DynamicDiffGCNConv, PointNetBlock, directions
from graphseg.ops import knn_edges
from graphseg.transforms import ToSuperpixelRAG
from tests.reference import diff_gcn as reference

BLOCKS = [PointNetBlock, DGCNNBlock, DiffGCNConv]
GRAPH_BLOCKS = [DGCNNBlock, DiffGCNConv]
CONFIGURATIONS = [(block, aggr) for block in GRAPH_BLOCKS for aggr in ("max", "mean")]
HOOKS = [(step, when) for step in ("propagate", "message", "aggregate") for when in ("forward_pre", "forward")]
STRICT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def graph(nodes=9, channels=4, edges=30, seed=0, dtype=torch.float64, device="cpu"):
    """x, edge_index and pos; edges in no order, some loops, some twice; places and features that coincide."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, channels, generator=generator, dtype=torch.float64)
    pos = torch.rand(nodes, 2, generator=generator, dtype=torch.float64) * 100
    if nodes > 3:
        pos[1], x[2], x[3] = pos[0], x[0], x[1]
    index = torch.randint(0, max(nodes, 1), (2, edges if nodes else 0), generator=generator)
    if nodes > 5:
        index[1][index[1] == 4] = 5  # node 4 hears nobody
        index[:, 1:2] = index[:, :1]
    return x.to(device, dtype), index.to(device), pos.to(device, dtype)


def layer(block, in_channels=4, out_channels=6, *more, dtype=torch.float64, **options):
    """A block with a bias that is not 0."""
    made = block(in_channels, out_channels, *more, **options).to(dtype)
    nn.init.normal_(made.lin.bias)
    return made


def printed(block, made, aggr, x, index, pos):
    """The formula of the paper on the layer's parameters."""
    x, pos = x.detach().double().cpu().numpy(), pos.detach().double().cpu().numpy()
    weight, bias = (p.detach().double().cpu().numpy() for p in (made.lin.weight, made.lin.bias))
    edges = [(int(j), int(i)) for j, i in index.T.tolist()]
    if block is PointNetBlock:
        return torch.from_numpy(reference.pointnet(x, weight, bias))
    if block is DGCNNBlock:
        return torch.from_numpy(reference.dgcnn(x, edges, weight, bias, aggr))
    return torch.from_numpy(reference.diff_gcn(x, edges, pos, weight, bias, aggr))


def derivatives(made, grad, x, index, pos):
    """Output, and gradients of x, pos (None where they do not matter) and the parameters."""
    x, pos = x.clone().requires_grad_(), pos.clone().requires_grad_()
    out = made(x, index, pos)
    return out, torch.autograd.grad(out, [x, pos, *made.parameters()], grad, allow_unused=True)


def assert_all_close(got, wanted, **tolerance):
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b, **tolerance)


# Values and gradients


def test_three_nodes_by_hand():
    # Node 0 at the origin hears 1 at (3, 4), and 2 at (0, -2). One channel; W = [1, 10, 100], b = 0.5.
    # From 1: F_0 - F_1 = -3, direction (-0.6, -0.8): 2.5 + 10 * 1.8 + 100 * 2.4 = 260.5.
    # From 2: F_0 - F_2 = 1, direction (0, 1): 2.5 + 100 = 102.5. Node 1 hears 0: 5.5 + 10 * 1.8 + 100 * 2.4 = 263.5.
    made = DiffGCNConv(1, 1)
    with torch.no_grad():
        made.lin.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
        made.lin.bias.fill_(0.5)
    x = torch.tensor([[2.0], [5.0], [1.0]])
    pos = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, -2.0]])
    index = torch.tensor([[1, 2, 0], [0, 0, 1]])
    assert_close(made(x, index, pos), torch.tensor([[260.5], [263.5], [0.0]]))
    assert_close(made(x, torch.tensor([[2], [0]]), pos), torch.tensor([[102.5], [0.0], [0.0]]))
    assert_close(directions(pos, index), torch.tensor([[-0.6, -0.8], [0.0, 1.0], [0.6, 0.8]]))
    made.lin.bias.data.fill_(-300.0)
    assert not made(x, index, pos).any()  # ReLU


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("aggr", ["max", "mean"])
@pytest.mark.parametrize("fuse", [True, False])
def test_the_printed_formula(block, aggr, fuse):
    given_here = graph()
    made = layer(block, aggr=aggr)
    made.fuse = fuse
    assert_close(made(*given_here).detach(), printed(block, made, aggr, *given_here), **STRICT)


@given(
    nodes=st.integers(0, 8),
    channels=st.integers(1, 4),
    out_channels=st.integers(1, 4),
    edges=st.integers(0, 25),
    configuration=st.sampled_from(CONFIGURATIONS),
    seed=st.integers(0, 999),
)
def test_any_shape(nodes, channels, out_channels, edges, configuration, seed):
    block, aggr = configuration
    given_here = graph(nodes, channels, edges, seed)
    made = layer(block, channels, out_channels, aggr)
    grad = torch.randn(nodes, out_channels, dtype=torch.float64)
    out, gradients = derivatives(made, grad, *given_here)
    assert_close(out.detach(), printed(block, made, aggr, *given_here), **STRICT)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)
    made.fuse = False
    plain, expected = derivatives(made, grad, *given_here)
    assert torch.equal(out, plain)
    assert_all_close(gradients, expected, **STRICT)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_fused_is_plain(configuration, device, dtype, tolerance):
    block, aggr = configuration
    given_here = graph(50, 8, 600, dtype=dtype, device=device)
    made = layer(block, 8, 16, aggr, dtype=dtype).to(device)
    grad = torch.randn(50, 16, dtype=dtype, device=device)
    fused, gradients = derivatives(made, grad, *given_here)
    made.fuse = False
    plain, expected = derivatives(made, grad, *given_here)
    assert fused.dtype == dtype and torch.equal(fused, plain)
    assert_all_close(gradients, expected, **tolerance)


def test_ties_go_to_the_same_edge_where_messages_are_made():
    # Nodes 1 and 2 are equal and lie alike as seen from 0: two edges with one message.
    x = torch.tensor([[1.0], [3.0], [3.0]], dtype=torch.float64)
    pos = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    index = torch.tensor([[2, 1], [0, 0]])
    made = DiffGCNConv(1, 1).double()
    nn.init.ones_(made.lin.weight)
    found = []
    for made.fuse in (True, False):
        out, gradients = derivatives(made, torch.ones(3, 1, dtype=torch.float64), x, index, pos)
        found.append(gradients[0].flatten().tolist())
    assert out[0].item() == 3
    assert found[0] == found[1] == [0.0, 0.0, 1.0]


def test_cpu_and_gpu_agree(device, dtype, tolerance):
    given_here = graph(50, 8, 600, dtype=dtype)
    for block in BLOCKS:
        made = layer(block, 8, 16, dtype=dtype)
        grad = torch.randn(50, 16, dtype=dtype)
        out, gradients = derivatives(made, grad, *given_here)
        there = [tensor.to(device) for tensor in given_here]
        out_there, gradients_there = derivatives(made.to(device), grad.to(device), *there)
        assert_close(out_there.cpu(), out, **tolerance)
        assert_all_close([g if g is None else g.cpu() for g in gradients_there], gradients, **tolerance)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("aggr", ["max", "mean"])
def test_gradcheck(block, aggr):
    x, index, pos = graph(6, 3, 14)
    pos = pos + torch.arange(12.0).view(6, 2)  # where two nodes meet, the derivative jumps
    made = layer(block, 3, 2, aggr)
    names = [name for name, _ in made.named_parameters()]

    def call(x, pos, *values):
        return functional_call(made, dict(zip(names, values, strict=True)), (x, index, pos))

    assert gradcheck(call, (x.requires_grad_(), pos.requires_grad_(), *made.parameters()))


def test_pygs_edge_conv_is_the_dgcnn_block():
    x, index, pos = graph()
    made = layer(DGCNNBlock)
    lin = nn.Linear(8, 6, dtype=torch.float64)
    peer = EdgeConv(nn.Sequential(lin, nn.ReLU()))  # it draws new parameters
    with torch.no_grad():
        W, V = made.lin.weight.split(4, 1)
        lin.weight.copy_(torch.cat([W, -V], 1))  # PyG's difference is F_j - F_i
        lin.bias.copy_(made.lin.bias)
    assert_close(made(x, index, pos), peer(x, index), **STRICT)


# Coinciding places


def test_no_distance_gives_no_derivative_and_no_gradient():
    pos = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 5.0]], requires_grad=True)
    found = directions(pos, torch.tensor([[1, 0, 2], [0, 0, 1]]))
    assert found.tolist() == [[0.0, 0.0], [0.0, 0.0], [0.0, -1.0]]
    found.sum().backward()
    assert pos.grad is not None
    assert pos.grad[0].tolist() == [0.0, 0.0]
    # d/dx of dx / Delta at (0, -3) is 1 / 3, and minus that at the other end; along y nothing changes.
    assert_close(pos.grad[1:], torch.tensor([[1 / 3, 0.0], [-1 / 3, 0.0]]))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_scale_of_places_does_not_matter(scale):
    pos = torch.tensor([[0.0, 0.0], [3.0, 4.0], [-1.0, 0.0]])
    index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    expected = torch.tensor([[0.6, 0.8], [-4 / math.sqrt(32), -4 / math.sqrt(32)], [1.0, 0.0]])
    assert_close(directions(pos * scale, index), expected)


@pytest.mark.parametrize("fuse", [True, False])
def test_all_nodes_at_one_place(fuse):
    x, index, pos = graph()
    made = layer(DiffGCNConv)
    made.fuse = fuse
    out, gradients = derivatives(made, torch.ones(9, 6, dtype=torch.float64), x, index, torch.full_like(pos, 7.0))
    pointnet = PointNetBlock(4, 6).double()
    with torch.no_grad():
        pointnet.lin.weight.copy_(made.lin.weight[:, :4])
        pointnet.lin.bias.copy_(made.lin.bias)
    heard = torch.zeros(9, dtype=torch.bool).index_fill(0, index[1], True)
    assert_close(out[heard], pointnet(x)[heard], **STRICT)
    assert not out[4].any()
    assert not gradients[1].any() and gradients[0].isfinite().all()


# Laws


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_permutations(configuration):
    x, index, pos = graph()
    made = layer(*configuration[:1], aggr=configuration[1])
    out = made(x, index, pos)
    edges, nodes = torch.randperm(index.size(1)), torch.randperm(9)
    assert_close(made(x, index[:, edges], pos), out, **STRICT)
    back = torch.argsort(nodes)
    assert_close(made(x[back], nodes[index], pos[back])[nodes], out, **STRICT)


@pytest.mark.parametrize("block", BLOCKS)
def test_batches_are_single_graphs(block):
    """One of the graphs is empty, one has one node, one has no edges."""
    singles = [graph(n, 4, e, seed=n) for n, e in ((7, 20), (0, 0), (1, 0), (5, 0), (12, 60))]
    batch = Batch.from_data_list([Data(x=x, edge_index=index, pos=pos) for x, index, pos in singles])
    made = layer(block)
    expected = torch.cat([made(*single) for single in singles])
    assert_close(made(batch.x, batch.edge_index, batch.pos), expected, **STRICT)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize(("nodes", "edges"), [(0, 0), (1, 0), (1, 2), (5, 0)])
@pytest.mark.parametrize("fuse", [True, False])
def test_degenerate_graphs(configuration, nodes, edges, fuse):
    block, aggr = configuration
    x, index, pos = graph(nodes, 4, edges)
    made = layer(block, aggr=aggr)
    made.fuse = fuse
    out, gradients = derivatives(made, torch.ones(nodes, 6, dtype=torch.float64), x, index, pos)
    assert_close(out.detach(), printed(block, made, aggr, x, index, pos), **STRICT)
    if edges == 0:
        assert not out.any() and not any(g.any() for g in gradients if g is not None)


def test_nothing_of_edges_times_channels_is_kept():
    x, index, pos = graph(40, 64, 3000)
    made = layer(DiffGCNConv, 64, 64)
    kept, largest = [], []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    for made.fuse in (True, False):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            made(x.requires_grad_(), index, pos.requires_grad_())
        largest.append(max(kept))
        kept.clear()
    assert largest[0] <= 64 * 192 < 3000 * 64 <= largest[1]


# The dynamic graph


def test_dynamic_graph_is_that_of_the_nearest_features():
    sizes = [30, 1, 0, 5]
    batch = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    x, _, pos = graph(36, 4)
    made = DynamicDiffGCNConv(4, 6, k=8).double()
    static = DiffGCNConv(4, 6).double()
    static.load_state_dict(made.state_dict())
    assert DynamicDiffGCNConv(4, 6).k == 20
    assert torch.equal(made(x, pos, batch), static(x, knn_edges(x, 8, batch), pos))
    assert torch.equal(made(x, pos), static(x, knn_edges(x, 8), pos))
    singles = [made(a, b) for a, b in zip(x.split(sizes), pos.split(sizes), strict=True)]
    assert_close(made(x, pos, batch), torch.cat(singles), **STRICT)
    assert not singles[1].any()


# Numbers of few bits


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("fuse", [True, False])
def test_autocast_keeps_differences(block, fuse, device):
    x, index, pos = graph(50, 8, 600, dtype=torch.float32, device=device)
    x = x + 100  # in bfloat16 the linear map of such numbers has no digit of their differences left
    made = layer(block, 8, 16, dtype=torch.float32).to(device)
    made.fuse = fuse
    expected = made(x, index, pos)
    with torch.autocast(device.type, torch.bfloat16):
        out, gradients = derivatives(made, torch.ones(50, 16, device=device), x, index, pos)
    assert torch.equal(out, expected)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("block", BLOCKS)
def test_bfloat16(block):
    x, index, pos = (t.bfloat16() if t.is_floating_point() else t for t in graph(50, 8, 600))
    made = layer(block, 8, 16, dtype=torch.bfloat16)
    out = made(x, index, pos)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, made.float()(x.float(), index, pos.float()).bfloat16())


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("block", BLOCKS)
def test_norms_of_few_bits(block, low):
    x, index, pos = (t.to(low) if t.is_floating_point() else t for t in graph(50, 8, 600))
    made = layer(block, 8, 16, norm=nn.BatchNorm1d(16), dtype=low)
    out = made(x, index, pos)
    assert out.dtype == low
    expected = made.double()(x.double(), index, pos.double())
    assert_close(out.double(), expected, rtol=0.02, atol=0.05)
    assert_close(made.float()(x.double(), index, pos).float(), made(x.float(), index, pos), rtol=1e-4, atol=1e-4)


# As a module


def test_state_round_trips():
    for block in (*BLOCKS, DynamicDiffGCNConv):
        made, other = (block(4, 6, norm=nn.BatchNorm1d(6)) for _ in range(2))
        assert not torch.equal(made.lin.weight, other.lin.weight)
        assert set(made.state_dict()) >= {"lin.weight", "lin.bias", "norm.running_mean"}
        other.load_state_dict(made.state_dict())
        assert torch.equal(made.lin.weight, other.lin.weight)
    assert {tuple(block(4, 6, bias=False).state_dict()) for block in BLOCKS} == {("lin.weight",)}
    assert [tuple(block(4, 6).lin.weight.shape) for block in BLOCKS] == [(6, 4), (6, 8), (6, 12)]


def test_reset_parameters_is_xaviers():
    norm = nn.BatchNorm1d(600)
    made = DiffGCNConv(4, 600, norm=norm)
    before = made.lin.weight.clone()
    nn.init.ones_(made.lin.bias)
    nn.init.ones_(norm.bias)
    made.reset_parameters()
    bound = math.sqrt(6 / (12 + 600))
    assert not torch.equal(made.lin.weight, before)
    assert 0.98 * bound < made.lin.weight.abs().max() <= bound
    assert not made.lin.bias.any() and not norm.bias.any()


def test_repr():
    assert repr(DiffGCNConv(4, 6)) == "DiffGCNConv(4, 6, aggr='max')"
    assert repr(DGCNNBlock(4, 6, "mean")) == "DGCNNBlock(4, 6, aggr='mean')"
    assert repr(DynamicDiffGCNConv(4, 6)) == "DynamicDiffGCNConv(4, 6, k=20, aggr='max')"


def test_norm_comes_before_relu_on_every_edge():
    x, index, pos = graph()
    norm = nn.BatchNorm1d(6)
    made = layer(DiffGCNConv, norm=norm)
    bare = DiffGCNConv(4, 6).double()
    bare.load_state_dict({key: value for key, value in made.state_dict().items() if key.startswith("lin")})
    messages = []
    bare.register_message_forward_hook(lambda module, inputs, out: messages.append(inputs[0]))
    bare(x, index, pos)
    u, v = messages[0]["values_i"], messages[0]["values_j"]
    z = u[:, 0] + torch.einsum("ek,ekc->ec", messages[0]["weight"], u[:, 1:] - v[:, 1:])
    normed = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()).relu()
    best = torch.zeros(9, 6, dtype=torch.float64).scatter_reduce(0, index[1, :, None].expand_as(z), normed, "amax")
    assert_close(made(x, index, pos), best, **STRICT)
    assert_close(norm.running_mean, 0.1 * z.mean(0).detach(), **STRICT)
    assert not made(x, index[:, :0], pos).any()  # a norm is not asked about no edges
    pointnet = PointNetBlock(4, 6, norm=nn.BatchNorm1d(6)).double()
    assert_close((pointnet(x) > 0).double().mean(), torch.tensor(0.5, dtype=torch.float64), rtol=0, atol=0.2)
    assert pointnet(x[:0]).shape == (0, 6)


@pytest.mark.parametrize(("step", "when"), HOOKS)
def test_hooks_see_messages(step, when):
    x, index, pos = graph()
    made = layer(DiffGCNConv)
    fused = made(x, index, pos)
    calls = []
    handle = getattr(made, f"register_{step}_{when}_hook")(lambda *seen: calls.append(seen))
    assert torch.equal(made(x, index, pos), fused)
    assert len(calls) == 1
    handle.remove()
    assert torch.equal(made(x, index, pos), fused)
    assert len(calls) == 1


def test_messages_of_a_subclass_are_used():
    class Halved(DiffGCNConv):
        def message(self, values_i, values_j, weight):
            return super().message(values_i, values_j, weight) / 2

    x, index, pos = graph()
    made = Halved(4, 6).double()
    whole = DiffGCNConv(4, 6).double()
    whole.load_state_dict(made.state_dict())
    assert_close(made(x, index, pos), whole(x, index, pos) / 2, **STRICT)


@pytest.mark.parametrize("block", GRAPH_BLOCKS)
def test_edge_masks_of_explainers(block):
    x, index, pos = graph()
    made = layer(block)
    fused = made(x, index, pos)
    made.explain, made._apply_sigmoid = True, False
    mask = torch.ones(index.size(1), dtype=torch.float64)
    for made._edge_mask in (mask, 0.5 * mask):
        assert_close(made(x, index, pos), fused * made._edge_mask[0], **STRICT)
    made._edge_mask = mask.index_fill(0, (index[1] == 5).nonzero()[:, 0], 0)
    assert not made(x, index, pos)[5].any()
    made.explain = None
    assert torch.equal(made(x, index, pos), fused)


def test_gnn_explainer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = DiffGCNConv(4, 8), DiffGCNConv(8, 3)

        def forward(self, x, edge_index, pos):
            return self.second(self.first(x, edge_index, pos), edge_index, pos)

    x, index, pos = graph(dtype=torch.float32)
    model = Net()
    before = model(x, index, pos)
    explainer = Explainer(
        model,
        GNNExplainer(epochs=20),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
    )
    explanation = explainer(x, index, pos=pos)
    assert explanation.edge_mask.shape == (30,) and explanation.edge_mask.any()
    assert explanation.node_mask.shape == x.shape
    assert torch.equal(model(x, index, pos), before)


def test_explainers_pass_through_the_dynamic_graph():
    """The mask is for the edges that are given, and the dynamic graph has others."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.dynamic, self.static = DynamicDiffGCNConv(4, 8, k=3), DiffGCNConv(8, 3)

        def forward(self, x, edge_index, pos):
            return self.static(self.dynamic(x, pos), edge_index, pos)

    x, index, pos = graph(dtype=torch.float32)
    explainer = Explainer(
        Net(),
        GNNExplainer(epochs=3),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
    )
    explanation = explainer(x, index, pos=pos)
    assert explanation.edge_mask.shape == (30,) and explanation.edge_mask.any()
    assert explanation.node_mask.any()


# Both are dynamo's own: it looks at the gradients of tensors between its graphs, and makes a Function to trace it.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("block", "backend"), [(PointNetBlock, "aot_eager"), (DGCNNBlock, "eager"), (DiffGCNConv, "aot_eager")]
)
def test_compile(block, backend):
    torch._dynamo.reset()
    given_here = graph()
    made = layer(block)
    grad = torch.randn(9, 6, dtype=torch.float64)
    out, gradients = derivatives(made, grad, *given_here)
    compiled, found = derivatives(torch.compile(made, backend=backend), grad, *given_here)
    assert_close(compiled, out, **STRICT)
    assert_all_close(found, gradients, **STRICT)


def test_edge_index_of_pyg():
    x, index, pos = graph()
    made = layer(DiffGCNConv)
    out = made(x, EdgeIndex(index, sparse_size=(9, 9)), pos)
    assert type(out) is torch.Tensor and torch.equal(out, made(x, index, pos))


# A photograph


def test_superpixels_of_a_photograph():
    image = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[:, ::4, ::4]
    regions = ToSuperpixelRAG(60)(Data(image=image.contiguous()))
    x, pos = regions.x.double(), regions.pos.double()
    for block in BLOCKS:
        made = layer(block, x.size(1), 8)
        expected = printed(block, made, "max", x, regions.edge_index, pos)
        assert expected.any()
        assert_close(made(x, regions.edge_index, pos).detach(), expected, **STRICT)
    dynamic = layer(DynamicDiffGCNConv, x.size(1), 8, 5)
    index = knn_edges(x, 5)
    assert index.size(1) == 5 * regions.num_nodes
    assert_close(dynamic(x, pos).detach(), printed(DiffGCNConv, dynamic, "max", x, index, pos), **STRICT)


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(3, 5)}, ValueError, "got 5 channels in x, expected in_channels=4"),
        ({"x": torch.zeros(3, 4, 1)}, ValueError, r"got shape \[3, 4, 1\] for x"),
        ({"x": torch.zeros(3, 4, dtype=torch.int64)}, TypeError, "int64 for x"),
        ({"x": [[0.0] * 4] * 3}, TypeError, "list for x"),
        ({"edge_index": torch.tensor([[0, 3], [1, 2]])}, ValueError, r"got node id 3 in edge_index.* \[0, 3\)"),
        ({"edge_index": torch.tensor([[0, 1], [1, -1]])}, ValueError, "got node id -1 in edge_index"),
        ({"edge_index": torch.zeros(2, 2)}, TypeError, "float32 for edge_index"),
        ({"edge_index": torch.zeros(2, dtype=torch.int64)}, ValueError, r"got shape \[2\] for edge_index"),
        ({"edge_index": torch.zeros(3, 3).to_sparse()}, TypeError, "sparse_coo .*edge_index"),
        ({"pos": torch.zeros(4, 2)}, ValueError, r"got shape \[4, 2\] for pos, expected \[3, 2\]"),
        ({"pos": torch.zeros(3, 3)}, ValueError, r"got shape \[3, 3\] for pos, expected \[3, 2\]"),
        ({"pos": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "int64 for pos"),
        ({"pos": torch.zeros(3, 2, device="meta")}, ValueError, "pos on meta"),
    ],
)
def test_bad_input_is_refused(change, error, words):
    good = {"x": torch.zeros(3, 4), "edge_index": torch.tensor([[0, 1], [1, 2]]), "pos": torch.zeros(3, 2)}
    made = DiffGCNConv(4, 6)
    made(**good)
    with pytest.raises(error, match=words):
        made(**{**good, **change})
    for block in (DGCNNBlock, PointNetBlock):
        if "x" in change:
            with pytest.raises(error, match=words):
                block(4, 6)(**{**good, **change})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"in_channels": 0}, ValueError, "in_channels=0"),
        ({"out_channels": 1.5}, TypeError, "float for out_channels"),
        ({"aggr": "sum"}, ValueError, "aggr='sum', expected one of 'max', 'mean'"),
        ({"k": 0}, ValueError, "k=0"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        DynamicDiffGCNConv(**{"in_channels": 4, "out_channels": 6, **arguments})
    if "k" not in arguments:
        for block in BLOCKS:
            with pytest.raises(error, match=words):
                block(**{"in_channels": 4, "out_channels": 6, **arguments})


def test_bad_batches_are_refused():
    made = DynamicDiffGCNConv(4, 6, k=2)
    x, pos = torch.zeros(3, 4), torch.zeros(3, 2)
    with pytest.raises(ValueError, match="expected sorted"):
        made(x, pos, torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match=r"got shape \[2\] for batch"):
        made(x, pos, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="NaN or infinite values in x"):
        made(x + math.nan, pos)
    with pytest.raises(ValueError, match=r"got shape \[2, 2\] for pos"):
        made(x, pos[:2])
