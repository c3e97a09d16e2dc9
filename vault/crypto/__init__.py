"""Pure cryptography: the puncturable tree, chunked encryption, key derivation and signatures."""
