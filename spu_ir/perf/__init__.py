"""
The benchmark `spu-perf`: ByteMLPerf's tasks, data, accuracy and report, on spu_ir.

Only the names of keys and files are ByteMLPerf's (github.com/bytedance/ByteMLPerf, general_perf):
its workload and model JSON files are read as they are, and its report JSON is written.
"""
