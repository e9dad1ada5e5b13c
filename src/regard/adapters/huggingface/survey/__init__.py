"""Which architectures of the installed transformers work through regard: each is built small and run both ways.

``python -m regard.adapters.huggingface.survey llama t5`` tells of two; ``--write FILE`` goes through all and writes the
page of the documentation.
"""
