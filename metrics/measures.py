"""How near vocoded speech comes to the original: the measures of evaluate.py.

Audio is float32 [samples], -1 to 1; `ours` and `original` have the same length. Needs what
requirements-eval.txt lists.
"""
import collections
import warnings
from typing import Dict, Sequence, Tuple

import librosa
import numpy as np
import pesq as pesq_library
import pystoi
import scipy.fft
import scipy.signal
import scipy.stats
import soxr

from datasets import mel_transform
from params import HParams

try:
    from speechmos import dnsmos, plcmos
except ImportError:                 # an extra
    dnsmos = plcmos = None

PESQ_RATE = 16000           # Hz, of wideband PESQ
MAGNITUDE_FLOOR = 1e-5      # of log mels: what lies below is silence to any ear
CEPSTRA = 24                # cepstral coefficients compared, from the first on
F0_RANGE = 65.0, 500.0      # Hz, of speaking voices
LINE_WIDTH = 2              # bins each side of a line that are the line's: a Hann window's
NEIGHBOURS = 32             # bins each side that are its neighbours'
COMB_BAND = 3000.0, 7500.0  # Hz, where speech has the least of its own that repeats
MOS = 'dnsmos', 'p808', 'plcmos'    # of METRICS, those that take speechmos
MOS_RATE = 16000            # Hz, of the models of speechmos

# better: 'higher' or 'lower', or '' where neither is
Metric = collections.namedtuple('Metric', 'title unit digits better meaning')

METRICS = collections.OrderedDict([
    ('nll_bits', Metric('NLL', 'bits a sample', 3, 'lower',
                        'negative log-likelihood of the original, as samples of 16 bits')),
    ('pesq', Metric('PESQ', '', 2, 'higher', 'wideband, 1 to 4.64 (ITU-T P.862.2)')),
    ('stoi', Metric('STOI', '', 3, 'higher', 'intelligibility, up to 1 (Taal et al. 2011)')),
    ('dnsmos', Metric('DNSMOS', '', 2, 'higher',
                      'overall quality, 1 to 5, guessed without the original (Reddy et al. 2022)')),
    ('p808', Metric('DNSMOS P.808', '', 2, 'higher',
                    'the same as listeners of ITU-T P.808 would judge (Reddy et al. 2021)')),
    ('plcmos', Metric('PLCMOS', '', 2, 'higher',
                      'quality after lost packets, 1 to 5, guessed likewise (Diener et al. 2023)')),
    ('mcd', Metric('MCD', 'dB', 2, 'lower', 'mel-cepstral distortion, 24 coefficients')),
    ('log_mel_l1', Metric('log-mel L1', '', 3, 'lower', 'mean distance of natural log mels')),
    ('f0_cents', Metric('F0 error', 'cents', 1, 'lower',
                        'root mean square over frames with a voice in both')),
    ('voicing', Metric('voicing error', '%', 1, 'lower',
                       'frames with a voice in one of the two alone')),
    ('line_noise', Metric('line noise', 'dB', 2, 'lower',
                          'at multiples of sample_rate / n_group, over the neighbourhood')),
    ('comb', Metric('comb', '', 3, 'lower', 'autocorrelation at one hop, 3 kHz to 7.5 kHz')),
    ('rtf', Metric('real-time factor', '', 3, 'lower', 'seconds of computing a second of speech')),
])


def compare(ours: np.ndarray, original: np.ndarray, hp: HParams) -> Dict[str, float]:
    """{key of METRICS: value} of audio and its original; NaN for what cannot be measured."""
    cents, voicing = f0_errors(f0(ours, hp.sample_rate), f0(original, hp.sample_rate))
    return dict(pesq=pesq(ours, original, hp.sample_rate),
                stoi=stoi(ours, original, hp.sample_rate),
                mcd=mel_cepstral_distortion(ours, original, hp),
                log_mel_l1=log_mel_l1(ours, original, hp), f0_cents=cents, voicing=voicing,
                line_noise=line_noise(ours, hp.sample_rate, hp.n_group),
                comb=comb(ours, hp.sample_rate, hp.hop_length), **mos(ours, hp.sample_rate))


def pesq(ours: np.ndarray, original: np.ndarray, sample_rate: int) -> float:
    """Wideband PESQ, 1.04 to 4.64; NaN where it finds no speech."""
    if sample_rate != PESQ_RATE:
        ours, original = (soxr.resample(x, sample_rate, PESQ_RATE) for x in (ours, original))
    try:
        return float(pesq_library.pesq(PESQ_RATE, original, ours, 'wb'))
    except pesq_library.PesqError:
        return float('nan')


def stoi(ours: np.ndarray, original: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility; NaN of less than 0.4 s of speech."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        try:
            return float(pystoi.stoi(original, ours, sample_rate))
        except (RuntimeWarning, ValueError):
            return float('nan')


def has_mos() -> bool:
    """Whether speechmos is installed."""
    return dnsmos is not None


def mos(audio: np.ndarray, sample_rate: int) -> Dict[str, float]:
    """{key of MOS: value} of audio alone: what networks guess that listeners would say.

    {} if speechmos, which has the networks, is not installed.
    """
    if not has_mos():
        return {}
    if sample_rate != MOS_RATE:
        audio = soxr.resample(audio, sample_rate, MOS_RATE)
    audio = np.clip(audio, -1, 1)
    state = np.random.get_state()
    np.random.seed(0)               # PLCMOS draws its listeners from NumPy's global generator
    try:
        listeners = plcmos.run(audio, MOS_RATE)
    finally:
        np.random.set_state(state)
    judged = dnsmos.run(audio, MOS_RATE)
    return dict(dnsmos=float(judged['ovrl_mos']), p808=float(judged['p808_mos']),
                plcmos=float(listeners['plcmos']))


def log_mel(audio: np.ndarray, hp: HParams) -> np.ndarray:
    """ln of the mel magnitudes of hp.mel, [frames, n_mels], whatever its own scale and power."""
    mel = mel_transform.mel_spectrogram(audio, hp.mel)
    magnitudes = mel_transform.mel_magnitudes(mel, hp.mel)
    if hp.mel.power == 2:
        magnitudes = np.sqrt(magnitudes)
    return np.log(np.maximum(magnitudes, MAGNITUDE_FLOOR))


def log_mel_l1(ours: np.ndarray, original: np.ndarray, hp: HParams) -> float:
    """Mean distance of the natural logarithms of mel magnitudes, over frames and bands."""
    return float(np.mean(np.abs(log_mel(ours, hp) - log_mel(original, hp))))


def mel_cepstral_distortion(ours: np.ndarray, original: np.ndarray, hp: HParams) -> float:
    """dB: 10 / ln 10 * sqrt(2 * sum of squared differences of cepstra 1 to 24), a mean of frames.

    Cepstra c of a log mel spectrum L of n bands are those of L[j] = c_0 + sum_m c_m cos(pi m (j +
    1/2) / n), so that this is the root mean square distance of spectral envelopes (Kubichek 1993).
    No frames are aligned: a vocoder keeps the time of its mels.
    """
    difference = log_mel(ours, hp) - log_mel(original, hp)
    cepstra = scipy.fft.dct(difference, axis=1)[:, 1:CEPSTRA + 1] / difference.shape[1]
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * np.sum(cepstra ** 2, axis=1))))


def f0(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Fundamental frequency [frames] in Hz, a frame every 16 ms; NaN where there is no voice.

    By pYIN (Mauch and Dixon 2014).
    """
    hop = int(0.016 * sample_rate)
    return librosa.pyin(audio, fmin=F0_RANGE[0], fmax=F0_RANGE[1], sr=sample_rate,
                        frame_length=4 * hop, hop_length=hop)[0]


def f0_errors(ours: np.ndarray, original: np.ndarray) -> Tuple[float, float]:
    """(root mean square error in cents, frames with a voice in one alone in %) of two `f0`s."""
    voiced, voiced_before = np.isfinite(ours), np.isfinite(original)
    both = voiced & voiced_before
    cents = 1200 * np.log2(ours[both] / original[both])
    return (float(np.sqrt(np.mean(cents ** 2))) if both.any() else float('nan'),
            100 * float(np.mean(voiced != voiced_before)))


def line_noise(audio: np.ndarray, sample_rate: int, n_group: int) -> float:
    """dB: the power at multiples of sample_rate / n_group over that of their neighbourhood.

    A mean over the multiples between zero and half the sample rate; each has 5 bins of 8 Hz (at 16
    kHz) and as neighbours the bins up to 250 Hz away. White noise has 0 dB. A vocoder that makes
    n_group samples at once, and makes them unlike, has tones there.
    """
    size = 2048
    power = scipy.signal.welch(np.asarray(audio, np.float64), nperseg=size, noverlap=size // 2)[1]
    ratios = []
    for k in range(1, (n_group + 1) // 2):
        centre = int(round(k * size / n_group))
        line = power[centre - LINE_WIDTH:centre + LINE_WIDTH + 1]
        around = np.concatenate([
            power[max(1, centre - NEIGHBOURS):centre - LINE_WIDTH - 2],
            power[centre + LINE_WIDTH + 3:min(centre + NEIGHBOURS + 1, size // 2)]])
        ratios.append(10 * np.log10((line.mean() + 1e-20) / (around.mean() + 1e-20)))
    return float(np.mean(ratios)) if ratios else float('nan')


def comb(audio: np.ndarray, sample_rate: int, hop_length: int) -> float:
    """Autocorrelation of audio at one hop, -1 to 1, in COMB_BAND; NaN for a rate that has none.

    A vocoder that hears a frame at a time makes frames alike: its spectrum is a comb with teeth
    sample_rate / hop_length apart.
    """
    low, high = COMB_BAND[0], min(COMB_BAND[1], 0.47 * sample_rate)
    if low >= high or len(audio) <= hop_length:
        return float('nan')
    band = scipy.signal.butter(8, [low, high], 'bandpass', fs=sample_rate, output='sos')
    x = scipy.signal.sosfiltfilt(band, np.asarray(audio, np.float64), padlen=0)
    return float(np.dot(x[hop_length:], x[:-hop_length]) / (np.dot(x, x) + 1e-12))


def interval(values: Sequence[float]) -> Tuple[float, float, float]:
    """(mean, low, high): a 95% bootstrap interval (percentile, 10,000 draws) of the mean."""
    finite = np.asarray([v for v in values if np.isfinite(v)])
    if len(finite) < 2 or np.ptp(finite) == 0:
        mean = float(finite.mean()) if len(finite) else float('nan')
        return mean, mean, mean
    found = scipy.stats.bootstrap((finite,), np.mean, method='percentile', n_resamples=9999,
                                  random_state=0).confidence_interval
    return float(finite.mean()), float(found.low), float(found.high)
