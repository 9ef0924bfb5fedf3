"""How mels become audio files: on one machine, and on many by Apache Beam."""
