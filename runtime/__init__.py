"""C sources that ship with strop: the session, the wire and the numerics; see `strop.h`."""
