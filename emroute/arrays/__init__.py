"""What the Array API standard lacks, by subject; `emroute.array` has it all under one name."""
