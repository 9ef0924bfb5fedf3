"""What bench_exports measures of LiteRT files; needs pesq."""
import os

import pytest
from speech import WAVS

import export
import utils
import vocoder
from bench import bench_exports
from datasets import audio_files
from interop import litert
from vocoder import Vocoder


@pytest.mark.slow
def test_int8_costs_the_bundled_voice_little(tmp_path):
    """PESQ of three held-out utterances, against Vocoder's. It falls by 0.04 over twenty."""
    hp, weights = vocoder.load_model(utils.BUNDLED_MODEL)
    path = tmp_path / 'int8.tflite'
    path.write_bytes(litert.whole_model(hp, weights, vocoder.freeze(hp, weights),
                                        export.build_vocoding, 'int8'))
    speech = [audio_files.read_wav(os.path.join(WAVS, name + '.wav'), hp.sample_rate)
              for name in ('tt-somethingwrong', 'conf-waitforleader', 'tt-weasels')]
    ours, int8 = (bench_exports.quality(vocode, speech, hp) for vocode in (
        Vocoder(hp, weights).vocode, bench_exports.whole(str(path), hp)))
    assert 3 < ours and ours - 0.15 < int8 < ours + 0.05
