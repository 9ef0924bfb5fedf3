"""What a training reads: files by their lists, or shards, as train.py's arguments say."""
import collections
import multiprocessing.pool
import os

import files
from datasets import clip_files, clip_shards, shards

# summary: what to tell of it; fact: what it is, by which hosts compare it; clips: makes the dataset
# of dataset.Clips in the graph, from the steps already done and, of shards, from a place (tensors);
# heldout: makes that of held-out utterances; test_names: theirs; fault: says why clips ended; placed:
# whether clips have places.
Source = collections.namedtuple('Source', 'summary fact clips heldout test_names fault placed')


def of(args, hp, hosts):
    """The Source of train.py's arguments. Raises UserError for what cannot be trained on."""
    return (_of_shards if args.data else _of_files)(args, hp, hosts)


def _of_files(args, hp, hosts):
    def load(filelist):
        return clip_files.index(files.read_list(filelist), args.wave_dir, args.lc_dir, hp)

    def hours(utterances):
        return sum(u.frames for u in utterances) * hp.hop_length / hp.sample_rate / 3600

    def clips(steps, _):
        return clip_files.training_clips(clippable, args.wave_dir, args.lc_dir, hp, args.seed, steps,
                                      args.accumulate, hosts.num_hosts, hosts.task_index)

    def heldout():
        return clip_files.whole_utterances(test_set, args.wave_dir, args.lc_dir, hp)

    train_set = load(args.filelist)
    clippable = clip_files.long_enough(train_set, hp)
    test_set = []
    if args.test_filelist and hosts.is_chief:
        test_set = load(args.test_filelist)[:hp.eval_utterances]
    summary = '%d utterances, %.2f hours, at %d Hz, mel profile %s; held out: %d, %.2f hours' % (
        len(train_set), hours(train_set), hp.sample_rate, hp.mel_profile, len(test_set),
        hours(test_set))
    if len(clippable) < len(train_set):
        summary += '\n      %d of them, %.2f hours, are shorter than a clip of %d samples and not used' % (
            len(train_set) - len(clippable), hours(train_set) - hours(clippable),
            hp.clip_frames * hp.hop_length)
    return Source(summary, clippable, clips, heldout, [u.name for u in test_set], lambda: None,
                  placed=False)


def _of_shards(args, hp, hosts):
    paths = shards.matching(args.data)
    reader = clip_shards.Reader(paths, hp, args.seed, hosts.num_hosts, hosts.task_index,
                                args.damaged_records == 'skip')
    with multiprocessing.pool.ThreadPool(64) as pool:   # waits for storage, not for processors
        fact = list(zip(map(os.path.basename, paths), pool.map(shards.size, paths)))
    test_set = []
    if args.test_data and hosts.is_chief:
        test_set = clip_shards.first_utterances(shards.matching(args.test_data), hp)
    summary = '%d shards, %.0f MB, at %d Hz, mel profile %s; held out: %d utterances' % (
        len(paths), sum(size for _, size in fact) / 1e6, hp.sample_rate, hp.mel_profile,
        len(test_set))
    return Source(summary, fact,
                  lambda _, place: clip_shards.training_clips(reader, place, args.accumulate),
                  lambda: clip_shards.whole_utterances(test_set, hp),
                  [clip.name.decode() for clip in test_set], lambda: reader.fault,
                  placed=True)
