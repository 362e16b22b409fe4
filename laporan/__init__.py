"""What may be said of a run (temuan), and the page that shows it (halaman)."""
