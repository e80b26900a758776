"""Where images and labels come from: the digits, the Hub, Parquet files, class folders."""
