package plugins

// Load reads plugins from anywhere.
var Load = load
