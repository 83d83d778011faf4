"""What users see when a file or a setting cannot be used."""


class ModelFileError(Exception):
    """A model file, or what is asked of it, that cannot be; one sentence says why."""


class SourceError(Exception):
    """A source of pictures, or a setting, that cannot be used."""
