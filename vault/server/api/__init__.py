"""Operations for people and programs under /v1."""
