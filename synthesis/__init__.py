"""What turns mels into audio without a model, or mends what a model makes."""
