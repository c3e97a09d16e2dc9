"""What tests share: values, clocks, servers, clients and recorders, and ways to break things. No test is here."""
