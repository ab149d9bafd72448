"""The one port: front door, HTTP pages, WebSocket wires."""
