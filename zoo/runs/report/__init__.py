"""The report: `report.html` and `comparison.html`, pages that show what runs did."""
