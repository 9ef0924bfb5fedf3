"""inference.py and vocoder.py: what goes in, what comes out, what is refused."""
import os
import shutil
import sys

import numpy as np
import ptfiles
import pytest
import soundfile
from speech import WAVS, prepare, refusal, script

import inference
import params
import train
import utils
from datasets import audio_files, mel_files, mel_transform
from errors import UserError
from synthesis.denoiser import Denoiser
from synthesis.mel_correction import MelCorrection
from vocoder import Vocoder, noise, pad_mels


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(folder of mels, run) of a tiny model that has trained for a few steps."""
    directory = tmp_path_factory.mktemp('trained')
    data = prepare(directory)
    argv, sys.argv = sys.argv, ['train.py'] + data + [
        '--logdir_root=%s' % directory, '--run_name=run', '--max_steps=40', '--hparams=lr=3e-3']
    try:
        train.main()
    finally:
        sys.argv = argv
    return directory / 'mels', directory / 'run'


@pytest.fixture(scope='module')
def vocoder(trained):
    return Vocoder.load(str(trained[1]))


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['inference.py'] + [str(a) for a in arguments])
    return inference.main()


def names_of(folder):
    return sorted(os.path.splitext(name)[0] for name in os.listdir(str(folder))
                  if name.endswith(('.mel', '.wav')))


@pytest.mark.slow
def test_a_folder_of_mels(monkeypatch, trained, tmp_path, capsys):
    mels, model = trained
    out = tmp_path / 'out'
    assert run(monkeypatch, '--lc', mels, '--restore_from', model, '--out_dir', out,
               '--plot', tmp_path / 'p.png') == 0
    assert names_of(out) == names_of(mels) == names_of(WAVS)
    for name in names_of(mels):
        audio, rate = soundfile.read(str(out / (name + '.wav')))
        frames = os.path.getsize(str(mels / (name + '.mel'))) // 320
        assert rate == 16000 and len(audio) == 256 * frames
        assert np.std(audio) > 1e-4
    assert 'real-time factor' in capsys.readouterr().out
    assert (tmp_path / 'p.png').read_bytes().startswith(b'\x89PNG')


def test_the_same_seed_gives_the_same_samples(monkeypatch, trained, tmp_path):
    mels, model = trained
    name = names_of(mels)[0]
    results = []
    for i, more in enumerate((['--seed=3'], ['--seed=3'], ['--seed=4'], ['--seed=3', '--sigma=0'])):
        run(monkeypatch, '--lc', mels / (name + '.mel'), '--restore_from', model,
            '--out_dir', tmp_path / str(i), *more)
        results.append((tmp_path / str(i) / (name + '.wav')).read_bytes())
    assert results[0] == results[1]
    assert results[0] != results[2] and results[0] != results[3]


def test_a_slow_type_is_told(monkeypatch, trained, tmp_path, capsys):
    mels, model = trained
    monkeypatch.setattr(inference.devices, 'convolution_speed', lambda dtype: 0.25)
    for precision, count in ('float16', 1), ('float32', 0):
        run(monkeypatch, '--lc', mels / (names_of(mels)[0] + '.mel'), '--restore_from', model,
            '--out_dir', tmp_path, '--precision', precision)
        assert capsys.readouterr().out.count('convolutions in float16 at 0.25 of') == count


def test_batches_sound_as_each_alone(monkeypatch, trained, tmp_path):
    mels, model = trained
    for size in (1, 5):
        run(monkeypatch, '--lc', mels, '--restore_from', model, '--out_dir', tmp_path / str(size),
            '--batch_size', size)
    for name in names_of(mels):
        one, five = (soundfile.read(str(tmp_path / size / (name + '.wav')), dtype='int16')[0]
                     .astype(int) for size in '15')
        assert len(one) == len(five) and np.abs(one - five).max() <= 2, name


def test_copy_synthesis_of_a_wav_equals_vocoding_its_mel(monkeypatch, trained, tmp_path):
    mels, model = trained
    name = names_of(mels)[0]
    run(monkeypatch, '--lc', os.path.join(WAVS, name + '.wav'), '--restore_from', model,
        '--out_dir', tmp_path / 'wav')
    run(monkeypatch, '--lc', mels / (name + '.mel'), '--restore_from', model,
        '--out_dir', tmp_path / 'mel')
    a, b = (soundfile.read(str(tmp_path / kind / (name + '.wav')), dtype='int16')[0].astype(int)
            for kind in ('wav', 'mel'))
    assert len(a) == len(b) and np.abs(a - b).max() <= 2


class Pieces:
    """A mel that is given out in small pieces only."""
    ndim = 2

    def __init__(self, mel):
        self._mel, self.shape = mel, mel.shape

    def __len__(self):
        return len(self._mel)

    def __getitem__(self, frames):
        piece = self._mel[frames]
        assert len(piece) <= mel_files.BLOCK_FRAMES
        return piece


def test_a_long_mel_is_vocoded_in_pieces(monkeypatch, trained, vocoder, tmp_path):
    """Neither the mel nor the audio is in memory as a whole; the wav is that of the whole."""
    mel = mel_files.read_mel(str(trained[0] / (names_of(trained[0])[0] + '.mel')), 80)
    mel = np.concatenate([mel] * (3000 // len(mel)))
    source = inference.Source('x.mel', 'x', '')
    write_blocks, lengths = inference.write_blocks, []

    def watched(path, blocks, *rest):
        def measured():
            for block in blocks:
                lengths.append(len(block))
                yield block
        return write_blocks(path, measured(), *rest)

    monkeypatch.setattr(inference, 'write_blocks', watched)
    processing = inference.WithModel(vocoder, seed=1,
                                     denoiser=Denoiser.from_vocoder(vocoder, 0.1))
    summary = inference.vocode_all(processing, {source: Pieces(mel)}, str(tmp_path))
    assert summary.vocoded == 1 and sum(lengths) == 256 * len(mel)
    assert max(lengths) < 256 * len(mel) / 4
    whole = Denoiser.from_vocoder(vocoder, 0.1)(vocoder.vocode(mel, seed=1))
    found = soundfile.read(str(tmp_path / 'x.wav'), dtype='float32')[0]
    np.testing.assert_allclose(found, np.clip(whole, -1, 1), atol=1e-3)


def test_what_breaks_in_the_middle_leaves_no_wav(monkeypatch, trained, vocoder, tmp_path, capsys):
    mels = {inference.Source(name, name, ''): np.full([500, 80], value, np.float32)
            for name, value in (('good', -5.0), ('bad', -4.0))}

    def stream(blocks, *rest):
        for block in blocks:
            yield np.zeros(256 * len(block), np.float32)
            if block[0, 0] == -4:
                yield np.array([np.nan], np.float32)

    monkeypatch.setattr(vocoder, 'stream', stream)
    (tmp_path / '.tmp-12345678-bad.wav').write_bytes(b'of a run that was killed')
    summary = inference.vocode_all(inference.WithModel(vocoder), mels, str(tmp_path))
    assert (summary.vocoded, summary.skipped) == (1, 1)
    assert os.listdir(str(tmp_path)) == ['good.wav']
    assert 'bad.wav would hold samples that are not finite' in capsys.readouterr().err


def test_npy_either_way_round(monkeypatch, trained, tmp_path):
    mels, model = trained
    mel = mel_files.read_mel(str(mels / (names_of(mels)[0] + '.mel')), 80)
    np.save(str(tmp_path / 'rows.npy'), mel)
    np.save(str(tmp_path / 'columns.npy'), mel.T)
    run(monkeypatch, '--lc', tmp_path, '--restore_from', model, '--out_dir', tmp_path / 'out')
    assert ((tmp_path / 'out' / 'rows.wav').read_bytes()
            == (tmp_path / 'out' / 'columns.wav').read_bytes())


def test_mels_of_nvidia(monkeypatch, trained, tmp_path, capsys):
    mels, model = trained
    name = names_of(mels)[0]
    mel = mel_files.read_mel(str(mels / (name + '.mel')), 80)
    (tmp_path / 'in').mkdir()
    ptfiles.save_zip(tmp_path / 'in' / 'mel.pt', mel.T)
    ptfiles.save_zip(tmp_path / 'in' / 'checkpoint.pt', {'state_dict': {'w': mel}})
    assert run(monkeypatch, '--lc', tmp_path / 'in', '--restore_from', model,
               '--out_dir', tmp_path / 'out') == 1
    assert 'checkpoint.pt: cannot be read (a checkpoint' in capsys.readouterr().err
    run(monkeypatch, '--lc', mels / (name + '.mel'), '--restore_from', model,
        '--out_dir', tmp_path / 'again')
    assert names_of(tmp_path / 'out') == ['mel']
    assert ((tmp_path / 'out' / 'mel.wav').read_bytes()
            == (tmp_path / 'again' / (name + '.wav')).read_bytes())


def test_one_bad_input_does_not_stop_the_others(monkeypatch, trained, tmp_path, capsys):
    mels, model = trained
    mel = mel_files.read_mel(str(mels / (names_of(mels)[0] + '.mel')), 80)
    np.save(str(tmp_path / 'good.npy'), mel)
    np.save(str(tmp_path / 'ambiguous.npy'), mel[:1].repeat(80, axis=0))
    np.save(str(tmp_path / 'seed_profile.npy'), np.random.RandomState(0).rand(30, 80))
    (tmp_path / 'torn.mel').write_bytes(b'123')
    assert run(monkeypatch, '--lc', tmp_path, '--restore_from', model,
               '--out_dir', tmp_path / 'out') == 1
    assert names_of(tmp_path / 'out') == ['good']
    err = capsys.readouterr().err
    assert err.count('skipped:') == 3 and '3 of 4 inputs' in err
    assert 'mel profile weixsong' in err and 'torn.mel' in err and 'ambiguous.npy' in err


def test_mels_of_another_profile_are_known_by_their_params(monkeypatch, trained, tmp_path):
    mels, model = trained
    shutil.copytree(str(mels), str(tmp_path / 'mels'))
    (tmp_path / 'mels' / 'params.json').write_text(params.to_json(
        params.preset('small').replace(sample_rate=22050)))
    with pytest.raises(UserError, match='none of the 20 inputs'):
        run(monkeypatch, '--lc', tmp_path / 'mels', '--restore_from', model)


def test_another_programs_params_json_is_passed_over(monkeypatch, trained, tmp_path):
    mels, model = trained
    (tmp_path / 'params.json').write_text('{"learning_rate": 3}')
    shutil.copy(str(mels / (names_of(mels)[0] + '.mel')), str(tmp_path / 'x.mel'))
    assert run(monkeypatch, '--lc', tmp_path / 'x.mel', '--restore_from', model,
               '--out_dir', tmp_path / 'out') == 0


def test_a_recording_is_not_overwritten(monkeypatch, trained, tmp_path):
    source = tmp_path / 'x.wav'
    shutil.copy(os.path.join(WAVS, names_of(WAVS)[0] + '.wav'), str(source))
    before = source.read_bytes()
    for given in (source, tmp_path):
        with pytest.raises(UserError, match='would be overwritten'):
            run(monkeypatch, '--lc', given, '--restore_from', trained[1], '--out_dir', tmp_path)
    os.symlink(str(tmp_path), str(tmp_path / 'link'))
    for more in (['--out_dir', tmp_path / 'link'],
                 ['--out_dir', tmp_path / 'out', '--plot', tmp_path / 'link' / 'x.wav']):
        with pytest.raises(UserError, match='would be overwritten'):
            run(monkeypatch, '--lc', source, '--restore_from', trained[1], *more)
    with pytest.raises(UserError, match='both would be written'):
        run(monkeypatch, '--lc', source, '--restore_from', trained[1], '--out_dir',
            tmp_path / 'out', '--plot', tmp_path / 'out' / 'x.wav')
    assert source.read_bytes() == before


def test_a_vocoder_refuses_what_is_no_mel(vocoder):
    for shape in ((80, 30), (30,), (0, 80)):
        with pytest.raises(UserError, match='frames x 80'):
            vocoder.vocode(np.zeros(shape))
    assert vocoder.vocode_batch([]) == []


@pytest.mark.parametrize('arguments,words', [
    (['--lc', 'nowhere.mel'], 'none of the 1 inputs'),
    (['--lc', '.'], 'no mels'),
    (['--lc', 'a/x.npy', 'b/x.npy'], 'would both be written to x.wav'),
    (['--lc', 'x.npy', '--restore_from', 'nowhere'], 'no checkpoint'),
    (['--lc', 'x.npy', '--restore_from', '.'], 'no checkpoint'),
    (['--lc', 'x.npy', '--preset', 'weixsong'], 'differ in'),
    (['--lc', 'x.npy', '--hparams', 'n_flows=3'], 'n_flows 3 and 2'),
])
def test_refusals(monkeypatch, trained, tmp_path, arguments, words):
    monkeypatch.chdir(str(tmp_path))
    if '--restore_from' not in arguments:
        arguments = arguments + ['--restore_from', str(trained[1])]
    with pytest.raises(UserError, match=words):
        run(monkeypatch, *arguments)
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.slow
def test_errors_are_one_sentence_and_a_status(tmp_path):
    done = script('inference.py', '--lc', 'x.mel', '--restore_from', str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith('inference.py: error: ') and done.stderr.count('\n') == 1


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path):
    for name in os.listdir(str(trained[1])):
        if os.path.isfile(str(trained[1] / name)):
            shutil.copy(str(trained[1] / name), str(tmp_path / name))
    hp = params.load(str(tmp_path))
    (tmp_path / 'params.json').write_text(params.to_json(hp.replace(residual_channels=9)))
    with pytest.raises(UserError, match='params.json is not that of its model'):
        Vocoder.load(str(tmp_path))


def test_noise_of_a_seed_does_not_depend_on_the_length():
    hp = params.preset('small')
    long, short = noise(50, hp, 0.6, 3), noise(20, hp, 0.6, 3)
    assert long.shape == (50 * 16, 16) and long.dtype == np.float32
    np.testing.assert_array_equal(long[:len(short)], short)
    assert abs(long.std() - 0.6) < 0.02
    assert not np.array_equal(short, noise(20, hp, 0.6, 4))


def test_pad_repeats_the_last_frame():
    padded = pad_mels([np.ones([2, 3]), 2 * np.ones([4, 3])])
    np.testing.assert_array_equal(padded, [np.ones([4, 3]), 2 * np.ones([4, 3])])


def test_two_vocoders_in_one_process(trained, vocoder):
    other = Vocoder.load(str(trained[1] / 'best'))
    mel = mel_files.read_mel(str(trained[0] / (names_of(trained[0])[0] + '.mel')), 80)
    np.testing.assert_allclose(vocoder.vocode(mel, seed=1), other.vocode(mel, seed=1), atol=1e-5)
    assert not np.allclose(vocoder.vocode(mel, sigma=0.9), vocoder.vocode(mel, sigma=0.1))


@pytest.mark.slow
def test_the_bundled_voice_denoised_and_corrected(monkeypatch, tmp_path):
    """Without --restore_from; the denoiser comes before the mel correction."""
    wav = os.path.join(WAVS, 'tt-weasels.wav')
    assert run(monkeypatch, '--lc', wav, '--out_dir', tmp_path, '--seed=3',
               '--denoiser_strength=0.02', '--mel_correction=2') == 0
    voice = Vocoder.load(utils.BUNDLED_MODEL)
    mel = mel_transform.mel_spectrogram(audio_files.read_wav(wav, 16000), voice.hp.mel)
    audio = Denoiser.from_vocoder(voice, 0.02)(voice.vocode(mel, seed=3, mel_correction=0))
    corrected = MelCorrection(voice.hp.mel, 2)(audio, mel)
    found, rate = soundfile.read(str(tmp_path / 'tt-weasels.wav'), dtype='float32')
    assert rate == 16000
    np.testing.assert_allclose(found, np.clip(corrected, -1, 1), atol=1e-3)
    assert np.max(np.abs(found - np.clip(audio, -1, 1))) > 0.02


@pytest.mark.parametrize('flag', ['--mel_correction=-1', '--denoiser_strength=-0.1',
                                  '--denoiser_strength=inf'])
def test_refused_strengths(monkeypatch, capsys, flag, tmp_path):
    said = refusal(monkeypatch, capsys, inference, '--lc', WAVS, '--out_dir',
                   str(tmp_path / 'out'), flag)
    assert flag.split('=')[0] in said
    assert not (tmp_path / 'out').exists()
