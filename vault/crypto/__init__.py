"""Cryptography without I/O: the puncturable tree, chunked encryption, key derivation and signatures."""
