"""The Firefly codec: 44.1 kHz waveform <-> 8 codes a frame at 21.5 Hz.

Mel front end -> ConvNeXt encoder -> FSQ (through vector-quantize-pytorch), and back through a HiFi-GAN generator.
Parameter names are the official ones, with the head's weight norm folded. Every convolution is causal, so a
decoder that keeps the last inputs of each layer makes the same samples frame by frame as all at once.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.errors import AudioError
from inference.model.config import CODES_PER_GROUP, FSQ_LEVELS, SAMPLE_RATE, CodecConfig


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Keep einx, which vector-quantize-pytorch needs, from registering its operations with torch.compile.

    Nothing here uses torch.compile, and the registration imports torch._dynamo: 2 s and 140 MB in each process.
    """
    announce = torch.compiler.allow_in_graph
    torch.compiler.allow_in_graph = lambda operation: operation
    try:
        yield
    finally:
        torch.compiler.allow_in_graph = announce


with warnings.catch_warnings(), _without_compiler():
    warnings.simplefilter("ignore", FutureWarning)  # this version decorates with torch.cuda.amp.autocast, which torch calls deprecated
    from vector_quantize_pytorch import GroupedResidualFSQ, ResidualFSQ

N_FFT, HOP = 2048, 512
MIN_SAMPLES = (N_FFT - HOP) // 2 + 1
"""The mel front end mirrors 768 samples at each end, so it needs at least one more."""


DECODE_FRAMES = 64
"""Frames that a whole decode processes at once. This limits its memory: 10 MB a frame at the released shape."""
EVEN_FRAMES = 16
"""It processes a multiple of these: for each new length oneDNN compiles a hundred kernels, and what they leave adds up."""


class History:
    """The last inputs of every causal layer of the decoder, for a batch of streams.

    Each layer takes the next entry, in the order the layers run. A new history means silence before the stream.
    """

    def __init__(self, past: Sequence[Tensor] = ()) -> None:
        self.past = list(past)
        self._next = 0

    def join(self, x: Tensor, keep: int, silu: bool = False) -> Tensor:
        """Put the layer's `keep` last inputs before x (batch, channels, ..., time), and remember the new ones.

        With `silu`, put them before silu(x); x is then (batch, channels, 1, time).
        """
        if self._next == len(self.past):
            self.past.append(_like(x, x.new_zeros(*x.shape[:-1], keep)))
        past = self.past[self._next]
        if silu and not x.requires_grad:
            shape = (*x.shape[:-1], keep + x.shape[-1])
            joined = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
            joined[..., :keep] = past
            torch.ops.aten.silu.out(x, out=joined[..., keep:])  # straight into its place, which saves a copy
        else:
            joined = torch.cat((past, F.silu(x) if silu else x), dim=-1)
        # A copy: a view would keep the layer's whole input alive.
        self.past[self._next] = _like(x, joined[..., joined.shape[-1] - keep :].clone())
        self._next += 1
        return joined

    def rewind(self) -> None:
        """Make ready for the next chunk."""
        self._next = 0


def _like(x: Tensor, past: Tensor) -> Tensor:
    """Past inputs laid out as x is, so that joining them costs one copy and changes no layout."""
    return past if x.ndim == 3 else past.contiguous(memory_format=torch.channels_last)


class CausalConv(nn.Module):
    """Conv1d that sees only the past. With a stride the end is padded so that out length = ceil(time / stride)."""

    def __init__(self, inner: int, outer: int, kernel: int, *, dilation: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inner, outer, kernel, stride=stride, dilation=dilation, groups=groups)
        self.reach = (kernel - 1) * dilation + 1 - stride
        self._laid_out: tuple[Tensor, Tensor, list[int]] | None = None  # kernel, bias, dilation: reading them from modules costs time

    def forward(self, x: Tensor, history: History | None = None, *, silu: bool = False) -> Tensor:
        """Convolve x (batch, channels, time).

        With a history, x may also be (batch, channels, 1, time), and then `silu` convolves silu(x).
        """
        if history is None:
            return self.conv(F.pad(x, (self.reach, -x.shape[-1] % self.conv.stride[0])))
        x = history.join(x, self.reach, silu)
        if x.ndim == 3:
            return self.conv(x)
        if self._laid_out is not None:  # F.conv2d would choose something slower for short inputs
            kernel, bias, dilation = self._laid_out
            return torch.mkldnn_convolution(x, kernel, bias, [0, 0], [1, 1], dilation, 1)
        return F.conv2d(x, self.conv.weight[:, :, None], self.conv.bias, dilation=(1, *self.conv.dilation))

    def lay_out(self) -> None:
        """Keep the kernel's channels innermost. Changes no value and no shape, but from then on the kernel must not change."""
        _channels_innermost(self.conv)
        kernel, bias = self.conv.weight, self.conv.bias
        single = kernel.device.type == "cpu" and kernel.dtype == torch.float32  # not every CPU can do this in FP16
        if single and torch.backends.mkldnn.is_available() and bias is not None:
            self._laid_out = kernel.detach()[:, :, None], bias.detach(), [1, *self.conv.dilation]


def _channels_innermost(conv: nn.Conv1d | nn.ConvTranspose1d) -> None:
    conv.weight.data = conv.weight.data.transpose(1, 2).contiguous().transpose(1, 2)


class CausalTransposedConv(nn.Module):
    """ConvTranspose1d cut on the right, so that out length = time * stride and nothing depends on the future."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inner, outer, kernel, stride=stride)
        self.stride, self.reach = stride, math.ceil(kernel / stride) - 1

    def forward(self, x: Tensor, history: History, *, silu: bool = False) -> Tensor:
        """Of x, or silu(x) if asked for, (batch, channels, ..., time) -> (batch, channels, ..., time * stride)."""
        joined = history.join(x, self.reach, silu)
        if x.ndim == 3:
            y = self.conv(joined)
        else:
            y = F.conv_transpose2d(joined, self.conv.weight[:, :, None], self.conv.bias, stride=(1, self.stride))
        start = self.reach * self.stride
        return y[..., start : start + x.shape[-1] * self.stride]


class ConvNeXtBlock(nn.Module):
    """Depthwise causal conv, then a per-position MLP with layer scale (arXiv:2201.03545)."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.dwconv = CausalConv(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        y = self.norm(self.dwconv(x, history).transpose(1, 2))
        y = self.pwconv2(F.gelu(self.pwconv1(y))) * self.gamma
        return x + y.transpose(1, 2)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (batch, channels, time)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), self.weight.shape, self.weight, self.bias, eps=1e-6).transpose(1, 2)


class Backbone(nn.Module):
    """ConvNeXt over log-mels, 86 positions a second throughout."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        entries: list[nn.Module] = [nn.Sequential(CausalConv(c.n_mels, c.dims[0], c.kernel_size), ChannelNorm(c.dims[0]))]
        entries += [nn.Sequential(ChannelNorm(a), nn.Conv1d(a, b, 1)) for a, b in zip(c.dims, c.dims[1:], strict=False)]
        self.downsample_layers = nn.ModuleList(entries)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(dim, c.kernel_size) for _ in range(depth))) for dim, depth in zip(c.dims, c.depths, strict=True)
        )
        self.norm = ChannelNorm(c.dims[-1])

    def forward(self, mel: Tensor) -> Tensor:
        """(batch, mels, time) -> (batch, dims[-1], time)."""
        x = mel
        for entry, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(entry(x))
        return self.norm(x)


class Quantizer(nn.Module):
    """Four positions of features to one frame of `groups` codes, and back (FSQ, arXiv:2309.15505)."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        dim, factors = c.dims[-1], c.downsample_factors
        self.residual_fsq = GroupedResidualFSQ(dim=dim, levels=list(FSQ_LEVELS), num_quantizers=1, groups=c.groups)
        self.downsample = nn.ModuleList(
            nn.Sequential(CausalConv(dim, dim, f, stride=f), ConvNeXtBlock(dim, c.kernel_size)) for f in factors
        )
        self.upsample = nn.ModuleList(
            nn.ModuleList((CausalTransposedConv(dim, dim, f, f), ConvNeXtBlock(dim, c.kernel_size))) for f in reversed(factors)
        )
        self._rows: Tensor | None = None

    @torch.no_grad()
    def lay_out(self) -> None:
        """Store the library's output for every code of every group, (groups * 1000, dim / groups): calling it takes about a millisecond
        each time.

        From then on the codebooks and projections must not change.
        """
        codes = torch.arange(CODES_PER_GROUP, device=self.residual_fsq.rvqs[0].project_out.weight.device)[None, :, None]
        self._rows = torch.cat([rvq.get_output_from_indices(codes)[0] for rvq in self.residual_fsq.rvqs])

    def reduce(self, features: Tensor) -> Tensor:
        """(batch, dim, time) -> (batch, dim, frames), still continuous."""
        for layer in self.downsample:
            features = layer(features)
        return features

    def encode(self, features: Tensor) -> Tensor:
        """(batch, dim, time) -> codes (batch, groups, frames) int64. Raises AudioError where weights overflow: NaN would become any code."""
        reduced = self.reduce(features)
        if not reduced.isfinite().all():
            raise AudioError("the codec produced values that are not numbers; its weights are damaged", "reference")
        groups = reduced.transpose(1, 2).chunk(len(self.residual_fsq.rvqs), dim=-1)
        return torch.stack([_fsq_encode(rvq, x) for rvq, x in zip(self.residual_fsq.rvqs, groups, strict=True)], dim=1)

    def decode(self, codes: Tensor, history: History) -> Tensor:
        """Codes (batch, groups, frames) -> features (batch, dim, 4 * frames)."""
        if self._rows is None:
            x = self.residual_fsq.get_output_from_indices(codes.transpose(0, 1)[..., None]).transpose(1, 2)
        else:
            offsets = CODES_PER_GROUP * torch.arange(codes.shape[1], device=codes.device)[:, None]
            x = F.embedding(codes + offsets, self._rows).transpose(1, 2).flatten(2).transpose(1, 2)
        for up, block in cast(Iterable[tuple[CausalTransposedConv, ConvNeXtBlock]], self.upsample):
            x = block(up(x, history), history)
        return x


def _fsq_encode(rvq: ResidualFSQ, x: Tensor) -> Tensor:
    """One group (batch, frames, width) -> codes (batch, frames) int64.

    The same as the library's own forward, without decoding: it bounds here and FSQ bounds again, and the released codec relies on both.
    """
    fsq = rvq.layers[0]
    return fsq(fsq.bound(rvq.project_in(x)))[1].long()


class ResBlock(nn.Module):
    """y += conv2(silu(conv1(silu(y)))) at growing dilations; unlike HiFi-GAN's, conv2 is dilated as conv1 is."""

    def __init__(self, dim: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(CausalConv(dim, dim, kernel, dilation=d) for d in dilations)
        self.convs2 = nn.ModuleList(CausalConv(dim, dim, kernel, dilation=d) for d in dilations)

    def forward(self, x: Tensor, history: History) -> Tensor:
        for conv1, conv2 in zip(self.convs1, self.convs2, strict=True):
            # Adding in place to the new tensor is three times as fast as allocating another.
            x = conv2(conv1(x, history, silu=True), history, silu=True).add_(x)
        return x


class ParallelBlocks(nn.Module):
    """The mean of residual branches with different kernels."""

    def __init__(self, dim: int, kernels: Sequence[int], dilations: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(dim, k, dilations) for k in kernels)

    def forward(self, x: Tensor, history: History) -> Tensor:
        total: Tensor = self.blocks[0](x, history)
        for block in self.blocks[1:]:
            total += block(x, history)
        return total.div_(len(self.blocks))


class Head(nn.Module):
    """HiFi-GAN generator (arXiv:2010.05646): features at 86 Hz to samples at 44.1 kHz."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        widths = [c.head_channels // 2**i for i in range(len(c.upsample_kernels) + 1)]
        dilations = [1 + 2 * i for i in range(c.units_per_resblock)]
        self.conv_pre = CausalConv(c.dims[-1], widths[0], c.conv_pre_kernel)
        self.ups = nn.ModuleList(
            CausalTransposedConv(a, b, k, r) for a, b, k, r in zip(widths, widths[1:], c.upsample_kernels, c.upsample_rates, strict=False)
        )
        self.resblocks = nn.ModuleList(ParallelBlocks(w, c.resblock_kernels, dilations) for w in widths[1:])
        self.conv_post = CausalConv(widths[-1], 1, c.conv_post_kernel)

    def forward(self, x: Tensor, history: History) -> Tensor:
        """(batch, dim, time) -> (batch, 512 * time).

        Computed as images one pixel high with channels innermost, which CPUs do faster than one-dimensional convolutions.
        """
        x = self.conv_pre(x[:, :, None].contiguous(memory_format=torch.channels_last), history)
        for up, blocks in zip(self.ups, self.resblocks, strict=True):
            x = blocks(up(x, history, silu=True), history)
        return torch.tanh(self.conv_post(x, history, silu=True))[:, 0, 0]

    def lay_out(self) -> None:
        """Keep the kernels' channels innermost too. From then on they must not change."""
        for module in self.modules():
            if isinstance(module, CausalConv):
                module.lay_out()
            elif isinstance(module, CausalTransposedConv):
                _channels_innermost(module.conv)


class LogMel(nn.Module):
    """Log-mel spectrogram: 2048-sample periodic Hann window every 512 samples, Slaney filters from 0 to 22050 Hz."""

    window: Tensor
    filters: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filters", mel_filters(n_mels), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(batch, samples) -> (batch, mels, samples // 512), natural log."""
        padded = F.pad(wave[:, None], (N_FFT // 2 - HOP // 2,) * 2, mode="reflect")[:, 0]
        spectrum = torch.stft(padded, N_FFT, HOP, window=self.window, center=False, return_complex=True)
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-6)
        return torch.log(torch.clamp(self.filters.T @ magnitude, min=1e-5))


class Codec(nn.Module):
    """The whole codec. `encode` needs the parts before the codes, `decode` and `stream` those after."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.spec_transform = LogMel(config.n_mels)
        self.backbone = Backbone(config)
        self.quantizer = Quantizer(config)
        self.head = Head(config)

    def encode(self, wave: Tensor) -> Tensor:
        """Mono samples (batch, samples) FP32 at 44.1 kHz -> codes (batch, groups, frames) int64.

        Raises AudioError when there are fewer than 769 samples.
        """
        if wave.shape[-1] < MIN_SAMPLES:
            raise AudioError(f"{wave.shape[-1]} samples are too few to encode; at least {MIN_SAMPLES} are needed")
        return self.quantizer.encode(self.backbone(self.spec_transform(wave)))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (batch, groups, frames) in 0..999 -> samples (batch, 2048 * frames) FP32 in [-1, 1]."""
        frames, history = codes.shape[-1], History()
        surplus = -frames % EVEN_FRAMES
        parts = F.pad(codes, (0, surplus)).split(DECODE_FRAMES, dim=-1)  # what comes behind changes nothing before it
        wave = torch.cat([self.decode_next(part, history) for part in parts], dim=-1)
        return wave[..., : wave.shape[-1] // (frames + surplus) * frames] if surplus else wave

    def decode_next(self, codes: Tensor, history: History) -> Tensor:
        """As `decode`, for codes that follow what `history` has seen; the history moves on."""
        wave = self.head(self.quantizer.decode(codes, history), history)
        history.rewind()
        return wave.float()

    def stream(self) -> CodecStream:
        """A new stream at silence."""
        return CodecStream(self)


class CodecStream:
    """One utterance, decoded as its frames arrive, with the same samples as a whole decode."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.past: list[Tensor] = []

    def decode(self, codes: Tensor) -> Tensor:
        """The next frames (groups, frames) -> samples (2048 * frames,) FP32."""
        return decode_streams([self], codes[None])[0]


def decode_streams(streams: Sequence[CodecStream], codes: Tensor) -> Tensor:
    """The next frames of several streams of one codec in one pass: codes (streams, groups, frames) -> (streams, samples).

    Each stream may be at any position; each gets the samples that it would get alone.
    """
    codec = streams[0]._codec
    if len(streams) == 1:  # nothing to concatenate or split
        history = History(streams[0].past)
        wave = codec.decode_next(codes, history)
        streams[0].past = history.past
        return wave
    begun = next((s.past for s in streams if s.past), [])
    silence = [torch.zeros_like(layer) for layer in begun]
    pasts = [s.past or silence for s in streams]
    history = History([torch.cat(layer) for layer in zip(*pasts, strict=True)])
    wave = codec.decode_next(codes, history)
    for i, stream in enumerate(streams):
        stream.past = [layer[i : i + 1].clone() for layer in history.past]
    return wave


def mel_filters(n_mels: int, sample_rate: int = SAMPLE_RATE, n_fft: int = N_FFT) -> Tensor:
    """Triangular filters (n_fft / 2 + 1, n_mels) on Slaney's mel scale, each of unit area (Auditory Toolbox, 1998)."""
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    edges = _mel_to_hz(torch.linspace(0, _hz_to_mel(sample_rate / 2), n_mels + 2))
    slopes = edges[None] - frequencies[:, None]
    widths = edges.diff()
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0) * (2.0 / (edges[2:] - edges[:-2]))


# Slaney's scale: linear below 1 kHz (3 mels each 200 Hz), logarithmic above (27 mels each factor of 6.4).
_BREAK_HZ, _BREAK_MEL, _HZ_PER_MEL, _LOG_STEP = 1000.0, 15.0, 200.0 / 3, math.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _BREAK_HZ else _BREAK_MEL + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mels: Tensor) -> Tensor:
    return torch.where(mels < _BREAK_MEL, mels * _HZ_PER_MEL, _BREAK_HZ * torch.exp(_LOG_STEP * (mels - _BREAK_MEL)))


def check_codes(codes: Tensor, groups: int) -> None:
    """Raise AudioError unless codes (groups, frames) are whole numbers the codec can decode."""
    if codes.ndim != 2 or codes.shape[0] != groups:
        raise AudioError(f"codes have shape {tuple(codes.shape)}; this codec takes ({groups}, frames)")
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise AudioError(f"codes are {str(codes.dtype).removeprefix('torch.')}; whole numbers are needed")
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < CODES_PER_GROUP:
        raise AudioError(f"codes run from {int(codes.min())} to {int(codes.max())}; this codec decodes 0 to {CODES_PER_GROUP - 1}")
