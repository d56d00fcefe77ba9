"""From text to token ids and back: the interface, chat templates, vocabularies."""
