"""A training step as a CUDA graph: the kernels of a small network take less time than their launch."""
import torch


class CudaGraph:
    """A training step without arguments, detached tensors its result; on CUDA replayed as a graph from call 4 on.

    What changes from step to step has to be in tensors that stay where they are, and the optimizer `capturable`. Each
    replay overwrites the last one's result. Lets cuDNN look for its fastest kernels, since the shapes stay the same.
    """

    def __init__(self, function, device):
        self.function, self.calls, self.graph = function, 0, None
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        torch.backends.cudnn.benchmark = True

    def __call__(self):
        if self.stream is None:
            return self.function()
        self.calls += 1
        if self.calls <= 3:  # lazy initialisation is no part of the recording
            current = torch.cuda.current_stream(self.stream.device)
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                result = self.function()
            current.wait_stream(self.stream)
            return result
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.result = self.function()
        self.graph.replay()
        return self.result
