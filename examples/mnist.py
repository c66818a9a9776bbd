"""Train a network on handwritten digits, measure its accuracy, save it and load it again.

.venv/bin/python examples/mnist.py            # 4,000 digits, 10 epochs: some seconds
.venv/bin/python examples/mnist.py mnist 5    # 60,000 digits, downloaded once; 5 epochs
"""

import sys

from layers import BatchNorm, Conv, Dense, Flatten, MaxPool, Relu, Softmax
from training import AdamW, Model, OneCycle, Reporter, ShiftAugmenter
from training.datasets import load_dataset

name = sys.argv[1] if len(sys.argv) > 1 else "mnist-5k"
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 10
train, test = load_dataset(name)  # train.images: uint8 (N, 1, 28, 28); train.labels: (N,)

model = Model(input_shape=(1, 28, 28), seed=0)
model.add(Conv(8, kernel_size=3, padding="same")).add(BatchNorm()).add(Relu()).add(MaxPool(2))
model.add(Conv(16, kernel_size=3, padding="same")).add(BatchNorm()).add(Relu()).add(MaxPool(2))
model.add(Flatten()).add(Dense(10)).add(Softmax())
print(model)  # the shape and the number of parameters of each layer

model.fit_normalization(train.images)
model.compile(optimizer=AdamW(learning_rate=6e-3, weight_decay=1e-3), label_smoothing=0.1)
model.train(
    train.images,
    train.labels,
    epochs=epochs,
    batch_size=64,
    validation_split=0.1,  # 3,600 digits of mnist-5k, or 54,000 of mnist, are left to train on
    augmenter=ShiftAugmenter(),
    schedule=OneCycle(),
    reporter=Reporter(),  # prints a line an epoch
)
print(f"test accuracy: {model.evaluate(test.images, test.labels):.2%}")

model.save("mnist.json")  # in the current folder
model = Model.load("mnist.json")
print("the first test images are labelled", model.predict(test.images[:10]), "by the loaded model")
