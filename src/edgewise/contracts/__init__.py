"""What every place agrees on: frozen values and strict codecs. No I/O, no numpy."""
