"""The console: what stands above all apps. It may import any of them; none of them imports it."""
