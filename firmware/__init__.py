"""C sources that ship with strop: main loop, start-up code and a port for every board; see `port.h`."""
