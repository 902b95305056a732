"""Which frames of its scores a chunk of a recording owns."""

from otus.audio import AudioInfo
from otus.dense import FrameRange
from otus.frontend import Frontend
from otus.windows import WindowFrontend


def frames_of_chunk(
    start_sample: int, end_sample: int, info: AudioInfo, frontend: Frontend | WindowFrontend
) -> FrameRange:
    """Return the frames whose centres lie in samples [start, end) of the recording; the last chunk takes the rest.

    Exact integer arithmetic, so that the chunks of a recording share out its frames without gap or overlap.
    """
    last = end_sample >= info.n_samples
    return FrameRange(
        _first_frame_at(start_sample, info, frontend),
        frontend.n_frames(info) if last else _first_frame_at(end_sample, info, frontend),
    )


def _first_frame_at(sample: int, info: AudioInfo, frontend: Frontend | WindowFrontend) -> int:
    """The first frame i with centre (i + 1/2) * hop / rate >= sample / recording rate."""
    hop, rate, native = frontend.hop_samples, frontend.sample_rate, info.sample_rate
    return max(0, -(-(2 * sample * rate - hop * native) // (2 * hop * native)))
