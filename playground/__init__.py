"""A page on which models are heard: its models, its inputs, what it computes, its Gradio layout."""
