"""Stand-ins for clouds: servers on loopback that the clouds' real clients talk to, for rehearsals and for the tests."""
