"""The server: the store's runs, deployments and keys over HTTP, live, and what is to be done now and then."""
