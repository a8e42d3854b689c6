"""Records and rules of Gridwitness; knows no network and no gateway."""
