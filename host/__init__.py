"""The PC side: command line, training runs, sessions with boards, transports and flash runners."""
