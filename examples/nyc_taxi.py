"""Process many Parquet files on S3: the NYC taxi job, one call for each monthly file.

Two lines decide where it runs: the decorator's options on machines in the cloud,
`TENDRIL_PLACE=local` in the environment on this machine. `AWS_ENDPOINT_URL` points s3fs
at another S3 server than Amazon's; `make demo` sets both.
"""
# fmt: off

import pandas as pd
import s3fs
import tendril

# Collect files to process
s3 = s3fs.S3FileSystem()
filenames = s3.ls("s3://nyc-tlc/trip data/")  # Data is in us-east-1
filenames = [
    f"s3://{fn}" for fn in filenames
    if "yellow_tripdata_201" in fn   # Data files from the 2010s
    or "yellow_tripdata_202" in fn   # Data files from the 2020s
]

# Define our processing function
@tendril.function(
    region="us-east-1",    # Same region as data
    vm_type="m6i.xlarge",  # Enough memory to process files
)
def process(filename):
    print(f"Processing {filename}")
    df = pd.read_parquet(filename)
    df = df[df.tip_amount != 0]

    outfile = "s3://tendril-scratch/nyc-taxi/" + filename.split("/")[-1]
    df.to_parquet(outfile)
    return outfile

# Process files
print(f"Processing {len(filenames)} files")
results = process.map(filenames)
for outfile in results:
    print(f"Finished {outfile}")

print("Done!")
